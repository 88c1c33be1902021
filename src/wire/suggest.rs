//! "Did you mean …?"

/// The candidate that was most likely meant, if any is near enough.
pub(crate) fn closest<'a>(said: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // A third of the letters wrong is still a typing mistake, more is another word.
    let tolerance = (said.chars().count().min(SAID_MAX) / 3).max(1);
    let (distance, found) = candidates.into_iter().map(|c| (distance(said, c), c)).min_by_key(|(d, _)| *d)?;
    (distance <= tolerance).then_some(found)
}

/// Changed, missing, additional and swapped letters; case counts for nothing.
fn distance(a: &str, b: &str) -> usize {
    let letters = |text: &str| text.chars().take(SAID_MAX).flat_map(char::to_lowercase).collect::<Vec<_>>();
    let (a, b) = (letters(a), letters(b));
    let mut before: Vec<usize> = Vec::new();
    let mut previous: Vec<usize> = (0..=b.len()).collect();
    for i in 0..a.len() {
        let mut current = vec![i + 1];
        for j in 0..b.len() {
            let changed = previous[j] + usize::from(a[i] != b[j]);
            let mut best = changed.min(previous[j + 1] + 1).min(current[j] + 1);
            if i > 0 && j > 0 && a[i] == b[j - 1] && a[i - 1] == b[j] {
                best = best.min(before[j - 1] + 1);
            }
            current.push(best);
        }
        before = std::mem::replace(&mut previous, current);
    }
    previous[b.len()]
}

/// Letters compared: keys of ours are shorter, and what a writer sends may be long.
const SAID_MAX: usize = 48;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typing_mistakes_find_their_word_and_other_words_do_not() {
        let keys = ["address", "weight", "max_requests", "tier"];
        for (said, meant) in [
            ("wieght", Some("weight")),
            ("weigth", Some("weight")),
            ("Weight", Some("weight")),
            ("maxRequests", Some("max_requests")),
            ("adress", Some("address")),
            ("teir", Some("tier")),
            ("colour", None),
            ("", None),
        ] {
            assert_eq!(closest(said, keys), meant, "{said}");
        }
    }
}
