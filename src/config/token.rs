//! The file with the tokens of the admin endpoint: one a line, so that a new one can be made known before the old one is
//! taken away.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::model::Secret;

/// At least one. `Err` says what is wrong with the file, never what stands in it.
pub fn read_tokens(path: &Path) -> Result<Vec<Secret>, String> {
    let fail = |error: std::io::Error| format!("{}: {error}", path.display());
    let mut text = String::new();
    File::open(path).map_err(fail)?.take(FILE_SIZE_MAX + 1).read_to_string(&mut text).map_err(fail)?;
    let wrong = |what: String| Err(format!("{}: {what}", path.display()));
    if text.len() as u64 > FILE_SIZE_MAX {
        return wrong(format!("is longer than {FILE_SIZE_MAX} bytes"));
    }
    let lines = (1..).zip(text.lines().map(str::trim)).filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    let mut tokens = Vec::new();
    for (number, line) in lines {
        if line.len() < LENGTH_MIN {
            return wrong(format!("line {number} is shorter than {LENGTH_MIN} characters, so it could be guessed"));
        }
        if !line.bytes().all(|byte| byte.is_ascii_graphic()) {
            return wrong(format!("line {number} has something that cannot stand in a token: ASCII without spaces can"));
        }
        tokens.push(Secret::new(line));
    }
    match tokens.len() {
        0 => wrong(format!("has no token; a line of {LENGTH_MIN} or more characters is one, as `openssl rand -hex 32` makes it")),
        n if n > TOKENS_MAX => wrong(format!("has {n} tokens; at most {TOKENS_MAX} are allowed")),
        _ => Ok(tokens),
    }
}

const LENGTH_MIN: usize = 16;
/// Each is compared with what a client says.
const TOKENS_MAX: usize = 16;
const FILE_SIZE_MAX: u64 = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<Vec<String>, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let tokens = read_tokens(file.path());
        tokens.map(|all| all.iter().map(|token| token.reveal().to_owned()).collect())
    }

    #[test]
    fn a_line_is_a_token() {
        assert_eq!(check("0123456789abcdef\n").unwrap(), ["0123456789abcdef"]);
        assert_eq!(
            check("# new\r\n0123456789abcdef\r\n\n fedcba9876543210 \n").unwrap(),
            ["0123456789abcdef", "fedcba9876543210"]
        );
    }

    #[test]
    fn a_wrong_file_says_why_and_not_what() {
        for (text, why) in [
            ("", "has no token"),
            ("# nothing\n", "has no token"),
            ("0123456789abcde", "line 1 is shorter than 16 characters"),
            ("0123456789abcdef\nwith a space in it\n", "line 2 has something that cannot"),
            (&"x".repeat(5000), "is longer than 4096 bytes"),
            (&"0123456789abcdef\n".repeat(17), "has 17 tokens"),
        ] {
            let error = check(text).unwrap_err();
            assert!(error.contains(why) && !error.contains("0123") && !error.contains("space in"), "{error}");
        }
        assert!(read_tokens(Path::new("/nowhere/token")).unwrap_err().starts_with("/nowhere/token: No such file"));
    }
}
