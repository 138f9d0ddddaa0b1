//! Addresses of web servers, taken apart. Pure.

use super::WebError;
use hyper::Uri;
use std::fmt;

/// Longest address that a redirection may name.
const ADDRESS_BYTES_MAX: usize = 8 << 10;

/// An http(s) address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    pub(super) https: bool,
    /// Name or number, without brackets.
    pub(super) host: String,
    pub(super) port: u16,
    /// Path and query; begins with a slash.
    pub(super) target: String,
}

impl Address {
    /// Reads an absolute address. Names and passwords in it are refused: a pea is handed out.
    pub(crate) fn parse(text: &str) -> Result<Self, WebError> {
        let uri: Uri = text.split('#').next().unwrap_or_default().parse().map_err(|_| WebError::Address("it is malformed"))?;
        let https = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(WebError::Address("it begins neither with http:// nor with https://")),
        };
        let authority = uri.authority().ok_or(WebError::Address("it names no host"))?;
        if authority.as_str().contains('@') {
            return Err(WebError::Address("it has a user name in it"));
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        if host.is_empty() {
            return Err(WebError::Address("it names no host"));
        }
        let port = match (authority.port_u16(), authority.as_str().rsplit_once(']').map_or(authority.as_str(), |(_, rest)| rest)) {
            (Some(0), _) => return Err(WebError::Address("its port is 0")),
            (Some(port), _) => port,
            // "host:" and "host:99999" have no number, but a colon.
            (None, rest) if rest.contains(':') => return Err(WebError::Address("its port is none")),
            (None, _) => {
                if https {
                    443
                } else {
                    80
                }
            }
        };
        let target = uri.path_and_query().map_or("/", |target| target.as_str());
        let target = if target.starts_with('/') { target.to_owned() } else { format!("/{target}") };
        Ok(Self { https, host, port, target })
    }

    /// Where a redirection leads. From https it may only lead to https.
    pub(super) fn redirected(&self, location: &str) -> Result<Self, WebError> {
        let location = location.split('#').next().unwrap_or_default();
        if location.is_empty() || location.len() > ADDRESS_BYTES_MAX || !location.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(WebError::Address("the redirection is malformed"));
        }
        let scheme = if self.https { "https" } else { "http" };
        let absolute = if location.starts_with("//") {
            format!("{scheme}:{location}")
        } else if location.split(['/', '?']).next().is_some_and(|start| start.contains(':')) {
            location.to_owned()
        } else if location.starts_with('/') {
            format!("{scheme}://{}{location}", self.authority())
        } else {
            let path = self.target.split('?').next().unwrap_or("/");
            let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
            let target = if location.starts_with('?') { format!("{path}{location}") } else { format!("{folder}/{location}") };
            format!("{scheme}://{}{target}", self.authority())
        };
        let there = Self::parse(&absolute)?;
        if self.https && !there.https {
            return Err(WebError::Address("the redirection leads from https to http"));
        }
        Ok(there)
    }

    /// The same server, another path.
    pub(super) fn at(&self, target: String) -> Self {
        Self { target, ..self.clone() }
    }

    /// Whether both are on one server.
    pub(super) fn same_server(&self, other: &Address) -> bool {
        (self.https, &self.host, self.port) == (other.https, &other.host, other.port)
    }

    /// What belongs into the `Host` field.
    pub(super) fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        match (self.https, self.port) {
            (true, 443) | (false, 80) => host,
            (_, port) => format!("{host}:{port}"),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", if self.https { "https" } else { "http" }, self.authority(), self.target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_apart_and_put_together() {
        for (text, again) in [
            ("http://example.org", "http://example.org/"),
            ("https://EXAMPLE.org:443/a%20b?c=d#e", "https://example.org/a%20b?c=d"),
            ("http://[2001:db8::1]:8080/x", "http://[2001:db8::1]:8080/x"),
            ("http://example.org:8080?q", "http://example.org:8080/?q"),
        ] {
            assert_eq!(Address::parse(text).map(|address| address.to_string()).ok().as_deref(), Some(again), "{text}");
        }
        for text in ["", "ftp://a/b", "http://", "http://user:word@example.org/", "example.org/a", "http://a:99999/", "http://a:0/", "/a"] {
            assert!(matches!(Address::parse(text), Err(WebError::Address(_))), "{text}");
        }
    }

    #[test]
    fn redirections_lead_where_browsers_would_go() {
        let here = Address::parse("http://a.example:8080/x/y?z").unwrap();
        for (location, there) in [
            ("http://b.example/q", "http://b.example/q"),
            ("https://b.example/q", "https://b.example/q"),
            ("//b.example/q", "http://b.example/q"),
            ("/q?r", "http://a.example:8080/q?r"),
            ("q", "http://a.example:8080/x/q"),
            ("?r", "http://a.example:8080/x/y?r"),
        ] {
            assert_eq!(here.redirected(location).unwrap().to_string(), there, "{location}");
        }
        for location in ["", "file:///etc/passwd", "gopher:x", "http://u@b/", "/a b", "/a\r\nX: y"] {
            assert!(here.redirected(location).is_err(), "{location:?}");
        }
        let secure = Address::parse("https://a.example/").unwrap();
        assert!(secure.redirected("http://a.example/").is_err());
        assert!(secure.redirected("/b").is_ok(), "the control");
    }
}
