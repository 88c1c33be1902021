//! The fields of a message, in whatever form whoever read it keeps them.

/// Names are asked for in lower case, and match however they were written.
pub trait Fields {
    /// The value of the n-th field of this name, counted from 0.
    fn nth(&self, name: &str, n: usize) -> Option<&[u8]>;

    /// Shows every name and value once.
    fn each(&self, show: &mut dyn FnMut(&str, &[u8]));

    fn get(&self, name: &str) -> Option<&[u8]> {
        self.nth(name, 0)
    }

    /// `None` also for a value that is more than printable ASCII.
    fn text(&self, name: &str) -> Option<&str> {
        self.get(name).and_then(text)
    }
}

impl Fields for http::HeaderMap {
    fn nth(&self, name: &str, n: usize) -> Option<&[u8]> {
        match n {
            0 => self.get(name).map(http::HeaderValue::as_bytes),
            n => self.get_all(name).iter().nth(n).map(http::HeaderValue::as_bytes),
        }
    }

    fn each(&self, show: &mut dyn FnMut(&str, &[u8])) {
        self.iter().for_each(|(name, value)| show(name.as_str(), value.as_bytes()));
    }
}

/// All values of that name, in their order.
pub fn all<'a, F: Fields + ?Sized>(fields: &'a F, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
    (0..).map_while(move |n| fields.nth(name, n))
}

pub fn text(value: &[u8]) -> Option<&str> {
    let is_text = value.iter().all(|b| matches!(b, b'\t' | b' '..=b'~'));
    is_text.then(|| std::str::from_utf8(value).ok()).flatten()
}
