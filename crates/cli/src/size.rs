//! Numbers of bytes, as people write them.

/// Reads a number of bytes, with a unit of a thousand or of 1,024 or without one.
///
/// # Errors
/// What is no size.
pub fn parse(text: &str) -> Result<u64, String> {
    const UNITS: [(&str, u64); 8] = [
        ("KIB", 1 << 10),
        ("MIB", 1 << 20),
        ("GIB", 1 << 30),
        ("KB", 1_000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
        ("TB", 1_000_000_000_000),
        ("B", 1),
    ];
    let upper = text.trim().to_ascii_uppercase();
    let unit = UNITS.iter().find_map(|(unit, bytes)| {
        let number = upper.strip_suffix(unit)?;
        Some((number.trim_end(), *bytes))
    });
    let (number, unit) = unit.unwrap_or((&upper, 1));
    match number.parse::<f64>() {
        Ok(number)
            if (0.0..1e9).contains(&number) || unit == 1 && (0.0..1e18).contains(&number) =>
        {
            Ok((number * unit as f64) as u64)
        }
        _ => Err(format!(
            "{text:?} is not a size: write it as 500MB, 2GB or 1.5GiB"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units_of_both_kinds() {
        assert_eq!(parse("2GB"), Ok(2_000_000_000));
        assert_eq!(parse("1.5 GiB"), Ok(1_610_612_736));
        assert_eq!(parse("500mb"), Ok(500_000_000));
        assert_eq!(parse("8000000000"), Ok(8_000_000_000));
        assert_eq!(parse("0"), Ok(0));
        for bad in ["", "GB", "2 bananas", "-1MB", "NaN"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
