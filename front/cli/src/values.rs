//! The little languages in option values: sizes, and a main part followed by `,name=value` properties.

use lodge_disk::Format;

/// A size with an optional suffix K, M, G or T (powers of 1024). Without a suffix it counts MiB.
///
/// # Errors
///
/// It is not a number, has another suffix, is zero or too large for 64 bits.
pub fn size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let shift = match text[digits.len()..].to_ascii_uppercase().as_str() {
        "K" | "KB" | "KIB" => 10,
        "" | "M" | "MB" | "MIB" => 20,
        "G" | "GB" | "GIB" => 30,
        "T" | "TB" | "TIB" => 40,
        other => return Err(format!("'{other}' is not a unit; use K, M, G or T")),
    };
    let number: u64 = digits.parse().map_err(|_| format!("'{text}' is not a size; write for example 512M"))?;
    match number.checked_mul(1 << shift) {
        Some(0) => Err("a size cannot be zero".into()),
        Some(bytes) => Ok(bytes),
        None => Err(format!("'{text}' is too large")),
    }
}

/// A disk image's format.
///
/// # Errors
///
/// There is no such format.
pub fn format(text: &str) -> Result<Format, String> {
    let known: Vec<_> = Format::ALL.iter().map(|format| format.name()).collect();
    Format::from_name(text).ok_or_else(|| format!("'{text}' is not one of the formats {}", known.join(", ")))
}

/// A number of processors.
///
/// # Errors
///
/// It is not a number from 1 to 255, the most that APIC IDs of 8 bits can name.
pub fn processors(text: &str) -> Result<u32, String> {
    match text.parse::<u32>() {
        Ok(number @ 1..=255) => Ok(number),
        _ => Err(format!("'{text}' is not a number from 1 to 255")),
    }
}

/// A duration in seconds, with a fraction if need be.
///
/// # Errors
///
/// It is not a positive number, or longer than a hundred years.
pub fn seconds(text: &str) -> Result<std::time::Duration, String> {
    const LONGEST: f64 = 100.0 * 365.25 * 86400.0;
    match text.parse::<f64>() {
        Ok(value) if value > 0.0 && value <= LONGEST => Ok(std::time::Duration::from_secs_f64(value)),
        _ => Err(format!("'{text}' is not a number of seconds above zero")),
    }
}

/// A value such as `disk.img,format=raw,readonly`: the main part, and properties in order, those without `=` with an
/// empty value. A doubled comma stands for one comma in the text.
pub fn properties(text: &str) -> (String, Vec<(String, Option<String>)>) {
    let mut parts = vec![String::new()];
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c == ',' && chars.next_if_eq(&',').is_none() {
            parts.push(String::new());
        } else if let Some(part) = parts.last_mut() {
            part.push(c);
        }
    }
    let main = parts.remove(0);
    let split = |part: String| match part.split_once('=') {
        Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
        None => (part, None),
    };
    (main, parts.into_iter().map(split).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("512", 512 << 20),
            ("64K", 64 << 10),
            ("1G", 1 << 30),
            ("2GiB", 2 << 30),
            ("3m", 3 << 20),
            ("1T", 1 << 40),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in ["", "G", "x1G", "1X", "0", "-5M", "1.5G", "99999999999999999999", "17592186044416M"] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn formats() {
        assert_eq!((format("qcow2"), format("vpc")), (Ok(Format::Qcow2), Ok(Format::Vhd)));
        assert_eq!(format("iso").unwrap_err(), "'iso' is not one of the formats raw, qcow2, vmdk, vdi, vhd, vhdx");
    }

    #[test]
    fn numbers_of_processors() {
        assert_eq!((processors("1"), processors("255")), (Ok(1), Ok(255)));
        for text in ["", "0", "256", "-1", "two", "1.5", "99999999999"] {
            assert!(processors(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations() {
        assert_eq!(seconds("1.5").unwrap().as_millis(), 1500);
        for text in ["", "0", "-1", "nan", "inf", "soon", "1e30"] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }

    #[test]
    fn parts_and_doubled_commas() {
        let (main, properties_) = properties("a,,b.img,format=raw,readonly,x=1=2");
        assert_eq!(main, "a,b.img");
        let expected = [("format", Some("raw")), ("readonly", None), ("x", Some("1=2"))]
            .map(|(n, v)| (n.into(), v.map(Into::into)));
        assert_eq!(properties_, expected);
        assert_eq!(properties("plain"), ("plain".into(), vec![]));
        assert_eq!(properties(""), (String::new(), vec![]));
        assert_eq!(properties("a,"), ("a".into(), vec![(String::new(), None)]));
    }
}
