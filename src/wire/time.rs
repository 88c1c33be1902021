//! Moments as RFC 3339 writes them, with any offset.

use std::time::{Duration, SystemTime};

use super::fields::Read;
use super::node::{Node, quoted};
use super::scalar::text;

pub(super) fn moment(node: &Node) -> Read<SystemTime> {
    let said = text(node)?;
    parse(said).ok_or_else(|| format!("{} is not a moment such as \"2030-01-31T12:00:00Z\" (RFC 3339)", quoted(said)))
}

/// In UTC. What lies before 1970 has no RFC 3339 form in our crates, and no reader; it is shown as 1970.
pub(super) fn show_moment(moment: SystemTime) -> String {
    humantime::format_rfc3339(moment.max(SystemTime::UNIX_EPOCH)).to_string()
}

fn parse(said: &str) -> Option<SystemTime> {
    if let Some(local) = said.strip_suffix(['Z', 'z']) {
        return humantime::parse_rfc3339(&format!("{local}Z")).ok();
    }
    let (local, offset) = said.split_at_checked(said.len().checked_sub("+00:00".len())?)?;
    let local = humantime::parse_rfc3339(&format!("{local}Z")).ok()?;
    let (hours, minutes) = offset.get(1..)?.split_once(':')?;
    let two_digits = |t: &str| t.bytes().all(|b| b.is_ascii_digit()).then(|| t.parse::<u64>().ok()).flatten();
    let (hours, minutes) = (two_digits(hours)?, two_digits(minutes)?);
    if hours > 23 || minutes > 59 {
        return None;
    }
    let offset_len = Duration::from_secs(hours * 3600 + minutes * 60);
    let moment = match offset.as_bytes()[0] {
        b'+' => local.checked_sub(offset_len)?,
        b'-' => local.checked_add(offset_len)?,
        _ => return None,
    };
    (moment >= SystemTime::UNIX_EPOCH).then_some(moment)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_name_the_same_moment() {
        let noon = SystemTime::UNIX_EPOCH + Duration::from_secs(1_900_000_000);
        for said in ["2030-03-17T17:46:40Z", "2030-03-17T17:46:40.000z", "2030-03-17T19:46:40+02:00", "2030-03-17T12:16:40-05:30"]
        {
            assert_eq!(parse(said), Some(noon), "{said}");
        }
        assert_eq!(show_moment(noon), "2030-03-17T17:46:40Z");
        for wrong in [
            "",
            "Z",
            "tomorrow",
            "2030-03-17",
            "2030-03-17T17:46:40",
            "2030-03-17T17:46:40+25:00",
            "1970-01-01T00:00:00+01:00",
            "ü+00:00",
        ] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
