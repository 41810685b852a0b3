//! Numbers as a person reads them.

/// A number with its thousands set apart.
pub fn count(n: usize) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Four significant digits, or all before the point: `0.4312`, `12.5`, `31,204`, `2e-5`.
pub fn significant(value: f64) -> String {
    if value.is_nan() {
        return "not a number".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "∞" } else { "-∞" }.to_owned();
    }
    match value.abs() {
        0.0 => "0".to_owned(),
        0.001..1e9 => decimal(value, 3 - value.abs().log10().floor() as i32),
        _ => exponential(value, 3),
    }
}

/// A number below 10^15 with at most so many decimals, its thousands set apart: `1,234.5`.
pub(super) fn decimal(value: f64, decimals: i32) -> String {
    let text = format!("{:.*}", decimals.max(0) as usize, value.abs());
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    let whole = whole.parse().map_or_else(|_| whole.to_owned(), count);
    let fraction = fraction.trim_end_matches('0');
    let point = if fraction.is_empty() { "" } else { "." };
    let sign = if value < 0.0 && text.contains(|digit| matches!(digit, '1'..='9')) { "-" } else { "" };
    format!("{sign}{whole}{point}{fraction}")
}

/// A number with at most so many decimals before its power of ten: `2.5e-5`.
pub(super) fn exponential(value: f64, decimals: usize) -> String {
    let text = format!("{value:.decimals$e}");
    match text.split_once('e') {
        Some((mantissa, exponent)) if mantissa.contains('.') => {
            format!("{}e{exponent}", mantissa.trim_end_matches('0').trim_end_matches('.'))
        }
        _ => text,
    }
}

/// A share of 1 in percent, two decimals at most: `94.17 %`.
pub fn percent(share: f64) -> String {
    if share.is_finite() && share.abs() < 1e6 { format!("{} %", decimal(100.0 * share, 2)) } else { significant(share) }
}

/// Bytes in powers of 1000, as disks and the plan count them: `412 MB`.
pub fn bytes(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{} kB", decimal(bytes as f64 / 1e3, 0)),
        1_000_000..1_000_000_000 => format!("{} MB", decimal(bytes as f64 / 1e6, 0)),
        _ => format!("{} GB", decimal(bytes as f64 / 1e9, 2)),
    }
}

/// A time in seconds, in the two units that say enough: `12.3 s`, `3 min 20 s`, `2 h 5 min`.
pub fn duration(seconds: f64) -> String {
    if seconds.is_nan() || seconds >= 1e12 {
        return significant(seconds);
    }
    let whole = seconds.round() as u64;
    match whole {
        0..60 => format!("{} s", decimal(seconds, if seconds < 10.0 { 2 } else { 1 })),
        60..3600 => format!("{} min {} s", whole / 60, whole % 60),
        _ => format!("{} h {} min", whole / 3600, whole % 3600 / 60),
    }
}

/// Bytes as lower-case hexadecimal.
pub fn hexadecimal(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_what_says_something() {
        let check = |value, expected| assert_eq!(significant(value), expected);
        check(0.0, "0");
        check(-0.0, "0");
        check(0.431_249, "0.4312");
        check(-12.5, "-12.5");
        check(100.0, "100");
        check(31_204.7, "31,205");
        check(999_999.9, "1,000,000");
        check(1_234_567.0, "1,234,567");
        check(5e9, "5e9");
        check(2e-5, "2e-5");
        check(-1.234_56e-7, "-1.235e-7");
        check(4e300, "4e300");
        check(f64::NAN, "not a number");
        check(f64::INFINITY, "∞");
        check(f64::NEG_INFINITY, "-∞");
    }

    #[test]
    fn units_fit_the_size() {
        let check = |text: String, expected| assert_eq!(text, expected);
        check(percent(0.941_66), "94.17 %");
        check(percent(1.0), "100 %");
        check(percent(f64::NAN), "not a number");
        check(bytes(999), "999 B");
        check(bytes(412_345_678), "412 MB");
        check(bytes(16_384_000_000), "16.38 GB");
        check(duration(0.421), "0.42 s");
        check(duration(12.34), "12.3 s");
        check(duration(59.99), "1 min 0 s");
        check(duration(200.0), "3 min 20 s");
        check(duration(7_500.0), "2 h 5 min");
        check(duration(f64::NAN), "not a number");
        check(duration(f64::INFINITY), "∞");
    }

    #[test]
    fn thousands_are_set_apart() {
        for (n, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (22_713_216, "22,713,216")] {
            assert_eq!(count(n), text);
        }
    }
}
