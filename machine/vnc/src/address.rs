//! Where a server listens: `HOST:PORT`, or `:N` or `N` for display N, which is port 5900 + N of this host alone.

use std::fmt;
use std::str::FromStr;

/// The port of display 0.
const DISPLAY_0: u16 = 5900;

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// A name or an address, without brackets.
    pub host: String,
    /// The TCP port; 0: any that is free.
    pub port: u16,
}

/// What is no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is no VNC address: {cause}; say for example :0 (port 5900 of this host alone) or 127.0.0.1:5901")]
pub struct AddressError {
    text: String,
    cause: &'static str,
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let error = |cause| AddressError { text: text.to_owned(), cause };
        // Digits alone: `parse` would take a sign, too.
        let number = |digits: &str| {
            let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
            plain.then(|| digits.parse::<u16>().ok()).flatten()
        };
        let (host, digits) = text.rsplit_once(':').unwrap_or(("", text));
        if host.is_empty() {
            let display = number(digits).ok_or_else(|| error("a display is a number"))?;
            let port = DISPLAY_0.checked_add(display).ok_or_else(|| error("there are displays 0 to 59635"))?;
            return Ok(Self { host: "127.0.0.1".into(), port });
        }
        let port = number(digits).ok_or_else(|| error("a port is a number up to 65535"))?;
        let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        if inner.is_none() && host.contains([':', '[', ']']) {
            return Err(error("an IPv6 address stands in brackets"));
        }
        Ok(Self { host: inner.unwrap_or(host).to_owned(), port })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn displays_and_ports() {
        let parse = |text: &str| text.parse::<Address>().map(|address| address.to_string());
        for (text, expected) in [
            (":0", "127.0.0.1:5900"),
            ("7", "127.0.0.1:5907"),
            (":59635", "127.0.0.1:65535"),
            ("0.0.0.0:5901", "0.0.0.0:5901"),
            ("localhost:0", "localhost:0"),
            ("[::1]:5902", "[::1]:5902"),
        ] {
            assert_eq!(parse(text).as_deref(), Ok(expected));
        }
        for text in [
            "", ":", "host", "host:", "host:x", "host:65536", ":59636", ":-1", "+1", "::1:5900", "[::1]", "[::1:0",
            "a]:1",
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(text) && error.contains("127.0.0.1:5901"), "{error}");
        }
    }
}
