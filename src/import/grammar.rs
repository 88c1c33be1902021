//! nginx's grammar: words, `;`, and blocks in braces, as its own reader (`ngx_conf_read_token`) takes them apart.
//!
//! A word ends at a space, `;` or `{`; one in quotes at the same quote, and then one of those has to follow. `\"`, `\'` and
//! `\\` lose their backslash, `\t`, `\r`, `\n` mean what they do in C, and every other backslash stays, as in patterns. `#`
//! begins a comment where a word could begin. The bodies of Lua's `…_by_lua_block` are not ours to read: they are passed
//! over by their braces.
//!
//! Bounds: blocks [`DEPTH_MAX`] deep. What a text costs is linear in its length.

use std::fmt;
use std::sync::Arc;

use super::findings::Place;

/// `name args… ;` or `name args… { block }`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directive {
    /// Counted through all files, so that each can be accounted for.
    pub id: usize,
    pub name: String,
    pub args: Vec<String>,
    pub block: Option<Vec<Directive>>,
    pub place: Place,
}

impl Directive {
    pub fn arg(&self, n: usize) -> &str {
        self.args.get(n).map_or("", String::as_str)
    }

    pub fn inner(&self) -> &[Directive] {
        self.block.as_deref().unwrap_or_default()
    }
}

/// On one line, shortened: for messages.
impl fmt::Display for Directive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = [std::slice::from_ref(&self.name), &self.args].concat().join(" ");
        let plain: String = whole.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        match plain.char_indices().nth(SHOWN_MAX) {
            Some((at, _)) => write!(f, "{}…", &plain[..at]),
            None => f.write_str(&plain),
        }
    }
}

/// Why a text is no configuration of nginx.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrammarError {
    pub place: Place,
    pub fault: Fault,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    Unclosed,
    UnclosedQuote,
    NotEnded,
    Stray(char),
    AfterQuote(char),
    TooDeep,
}

impl fmt::Display for GrammarError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.place)?;
        match self.fault {
            Fault::Unclosed => f.write_str("this block is not closed: a } is missing"),
            Fault::UnclosedQuote => f.write_str("this quote is not closed"),
            Fault::NotEnded => f.write_str("this directive is ended by neither ; nor a block"),
            Fault::Stray(c) => write!(f, "unexpected {c:?}"),
            Fault::AfterQuote(c) => write!(f, "{c:?} follows a closing quote; a space, ;, {{ or ) would be right"),
            Fault::TooDeep => write!(f, "blocks are more than {DEPTH_MAX} deep"),
        }
    }
}

impl std::error::Error for GrammarError {}

/// The directives of one file; their ids begin with `next_id`, which is moved on.
pub fn parse(file: &Arc<str>, text: &str, next_id: &mut usize) -> Result<Vec<Directive>, GrammarError> {
    let mut reader = Reader { text, at: 0, line: 1, file, next_id };
    let directives = reader.block(0, None)?;
    Ok(directives)
}

struct Reader<'a> {
    text: &'a str,
    /// A boundary of characters.
    at: usize,
    line: usize,
    file: &'a Arc<str>,
    next_id: &'a mut usize,
}

impl Reader<'_> {
    /// Up to the `}` of the block that was opened there, or to the end of the file.
    fn block(&mut self, depth: usize, opened: Option<&Place>) -> Result<Vec<Directive>, GrammarError> {
        if depth > DEPTH_MAX {
            return Err(self.fault(Fault::TooDeep));
        }
        let mut directives = Vec::new();
        loop {
            self.skip_space();
            match (self.peek(), opened) {
                (None, None) => return Ok(directives),
                (None, Some(place)) => return Err(GrammarError { place: place.clone(), fault: Fault::Unclosed }),
                (Some('}'), Some(_)) => {
                    self.take();
                    return Ok(directives);
                }
                (Some(c @ ('}' | '{' | ';')), _) => return Err(self.fault(Fault::Stray(c))),
                (Some(_), _) => directives.push(self.directive(depth)?),
            }
        }
    }

    fn directive(&mut self, depth: usize) -> Result<Directive, GrammarError> {
        let place = self.place();
        let id = *self.next_id;
        *self.next_id += 1;
        let name = self.word()?;
        let mut args = Vec::new();
        loop {
            self.skip_space();
            match self.peek() {
                Some(';') => {
                    self.take();
                    return Ok(Directive { id, name, args, block: None, place });
                }
                Some('{') => {
                    self.take();
                    let block = if name.ends_with("_by_lua_block") {
                        self.skip_lua(&place)?;
                        Vec::new()
                    } else {
                        self.block(depth + 1, Some(&place))?
                    };
                    return Ok(Directive { id, name, args, block: Some(block), place });
                }
                Some('}') | None => return Err(GrammarError { place, fault: Fault::NotEnded }),
                Some(_) => args.push(self.word()?),
            }
        }
    }

    fn word(&mut self) -> Result<String, GrammarError> {
        let start = self.place();
        let quote = self.peek().filter(|c| matches!(c, '"' | '\''));
        if quote.is_some() {
            self.take();
        }
        let mut word = String::new();
        loop {
            match (self.peek(), quote) {
                (None, Some(_)) => return Err(GrammarError { place: start, fault: Fault::UnclosedQuote }),
                (None, None) => return Ok(word),
                (Some('\\'), _) => {
                    self.take();
                    match self.peek() {
                        Some(c @ ('"' | '\'' | '\\')) => word.push(c),
                        Some('t') => word.push('\t'),
                        Some('r') => word.push('\r'),
                        Some('n') => word.push('\n'),
                        Some(c) => word.extend(['\\', c]),
                        None => word.push('\\'),
                    }
                    self.take();
                }
                (Some(c), Some(quote)) if c == quote => {
                    self.take();
                    return match self.peek() {
                        Some(c) if !(c.is_ascii_whitespace() || matches!(c, ';' | '{' | ')')) => {
                            Err(self.fault(Fault::AfterQuote(c)))
                        }
                        _ => Ok(word),
                    };
                }
                // A variable's name may stand in braces, which open no block.
                (Some('$'), None) if self.text[self.at..].starts_with("${") => {
                    self.take();
                    self.take();
                    word += "${";
                }
                (Some(c), None) if c.is_ascii_whitespace() || matches!(c, ';' | '{') => return Ok(word),
                (Some(c), _) => {
                    word.push(c);
                    self.take();
                }
            }
        }
    }

    fn skip_space(&mut self) {
        while let Some(c) = self.peek() {
            if c == '#' {
                while self.peek().is_some_and(|c| c != '\n') {
                    self.take();
                }
            } else if c.is_ascii_whitespace() {
                self.take();
            } else {
                return;
            }
        }
    }

    fn skip_lua(&mut self, opened: &Place) -> Result<(), GrammarError> {
        let mut depth = 1_usize;
        while depth > 0 {
            match self.peek() {
                Some('{') => depth += 1,
                Some('}') => depth -= 1,
                Some(_) => {}
                None => return Err(GrammarError { place: opened.clone(), fault: Fault::Unclosed }),
            }
            self.take();
        }
        Ok(())
    }

    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    fn take(&mut self) {
        if let Some(c) = self.peek() {
            self.at += c.len_utf8();
            self.line += usize::from(c == '\n');
        }
    }

    fn place(&self) -> Place {
        Place { file: self.file.clone(), line: self.line }
    }

    fn fault(&self, fault: Fault) -> GrammarError {
        GrammarError { place: self.place(), fault }
    }
}

const DEPTH_MAX: usize = 32;
/// Characters of a directive in a message.
const SHOWN_MAX: usize = 80;

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<String, String> {
        fn show(directives: &[Directive]) -> String {
            let one = |d: &Directive| {
                let block = d.block.as_ref().map_or(String::new(), |inner| format!("{{{}}}", show(inner)));
                format!("{}:{}{:?}{block}", d.place.line, d.name, d.args)
            };
            directives.iter().map(one).collect::<Vec<_>>().join(" ")
        }
        parse(&"f".into(), text, &mut 0).map(|found| show(&found)).map_err(|e| e.to_string())
    }

    #[test]
    fn words_quotes_comments_and_blocks_are_nginxs() {
        for (text, expected) in [
            ("a b c;", r#"1:a["b", "c"]"#),
            ("a {\n b 'c d' \"e;f\"; # no {\n}", r#"1:a[]{2:b["c d", "e;f"]}"#),
            (r"location ~ \.php$ { }", r#"1:location["~", "\\.php$"]{}"#),
            (r#"a "\"x\" \. \\";"#, r#"1:a["\"x\" \\. \\"]"#),
            ("a x#y ${b}c $d;", r##"1:a["x#y", "${b}c", "$d"]"##),
            ("access_by_lua_block { if x then { y } end }\nb;", "1:access_by_lua_block[]{} 2:b[]"),
            ("", ""),
        ] {
            assert_eq!(read(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_configuration_says_where() {
        for (text, said) in [
            ("a {\nb;", "f:1: this block is not closed: a } is missing"),
            ("a;\n}", "f:2: unexpected '}'"),
            ("a {\n b\n}", "f:2: this directive is ended by neither ; nor a block"),
            ("a 'b;", "f:1: this quote is not closed"),
            ("a 'b'c;", "f:1: 'c' follows a closing quote; a space, ;, { or ) would be right"),
            ("\n;", "f:2: unexpected ';'"),
        ] {
            assert_eq!(read(text), Err(said.to_owned()), "{text}");
        }
        assert!(read(&"a {".repeat(40)).unwrap_err().contains("more than 32 deep"));
    }
}
