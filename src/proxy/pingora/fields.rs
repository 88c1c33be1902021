//! The header types of the crates around Pingora, as the neutral parts read and rewrite them.

use http::{HeaderMap, HeaderName, HeaderValue};
use pingora_http::{RequestHeader, ResponseHeader};

use crate::proxy::edit::EditFields;
use crate::proxy::forward::FieldsMut;
use crate::routing::Fields;

impl FieldsMut for HeaderMap {
    fn set(&mut self, name: &'static str, value: &[u8]) {
        // Fails for values only that no parser lets through.
        if let Ok(value) = HeaderValue::from_bytes(value) {
            self.insert(HeaderName::from_static(name), value);
        }
    }

    fn remove(&mut self, name: &str) {
        Self::remove(self, name);
    }
}

impl EditFields<'_> for HeaderMap {
    fn put(&mut self, name: &HeaderName, value: &[u8]) {
        if let Ok(value) = HeaderValue::from_bytes(value) {
            self.insert(name.clone(), value);
        }
    }

    fn add(&mut self, name: &HeaderName, value: &[u8]) {
        if let Ok(value) = HeaderValue::from_bytes(value) {
            self.append(name.clone(), value);
        }
    }
}

macro_rules! fields_of_pingora {
    ($header:ty) => {
        impl Fields for $header {
            fn nth(&self, name: &str, n: usize) -> Option<&[u8]> {
                self.headers.nth(name, n)
            }

            fn each(&self, show: &mut dyn FnMut(&str, &[u8])) {
                self.headers.each(show);
            }
        }

        impl FieldsMut for $header {
            fn set(&mut self, name: &'static str, value: &[u8]) {
                if let Ok(value) = HeaderValue::from_bytes(value) {
                    // Fails for invalid names only.
                    let _ = self.insert_header(HeaderName::from_static(name), value);
                }
            }

            fn remove(&mut self, name: &str) {
                self.remove_header(name);
            }
        }

        impl EditFields<'_> for $header {
            fn put(&mut self, name: &HeaderName, value: &[u8]) {
                if let Ok(value) = HeaderValue::from_bytes(value) {
                    let _ = self.insert_header(name.clone(), value);
                }
            }

            fn add(&mut self, name: &HeaderName, value: &[u8]) {
                if let Ok(value) = HeaderValue::from_bytes(value) {
                    let _ = self.append_header(name.clone(), value);
                }
            }
        }
    };
}

fields_of_pingora!(RequestHeader);
fields_of_pingora!(ResponseHeader);
