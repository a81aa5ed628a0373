//! English numbers with what hangs on them: money, units, dates, times, ranges, fractions, versions.

use super::english::say_mixed;
use super::numbers::{cardinal, digits, ordinal, plural, year};

const MONTHS: [(&str, &str); 12] = [
    ("january", "jan"),
    ("february", "feb"),
    ("march", "mar"),
    ("april", "apr"),
    ("may", "may"),
    ("june", "jun"),
    ("july", "jul"),
    ("august", "aug"),
    ("september", "sep"),
    ("october", "oct"),
    ("november", "nov"),
    ("december", "dec"),
];

/// Written, singular, plural.
const UNITS: &[(&str, &str, &str)] = &[
    ("km", "kilometer", "kilometers"),
    ("m", "meter", "meters"),
    ("cm", "centimeter", "centimeters"),
    ("mm", "millimeter", "millimeters"),
    ("mi", "mile", "miles"),
    ("ft", "foot", "feet"),
    ("yd", "yard", "yards"),
    ("kg", "kilogram", "kilograms"),
    ("g", "gram", "grams"),
    ("mg", "milligram", "milligrams"),
    ("lb", "pound", "pounds"),
    ("lbs", "pound", "pounds"),
    ("oz", "ounce", "ounces"),
    ("l", "liter", "liters"),
    ("L", "liter", "liters"),
    ("ml", "milliliter", "milliliters"),
    ("mL", "milliliter", "milliliters"),
    ("km/h", "kilometer per hour", "kilometers per hour"),
    ("kph", "kilometer per hour", "kilometers per hour"),
    ("mph", "mile per hour", "miles per hour"),
    ("m/s", "meter per second", "meters per second"),
    ("ms", "millisecond", "milliseconds"),
    ("s", "second", "seconds"),
    ("sec", "second", "seconds"),
    ("min", "minute", "minutes"),
    ("h", "hour", "hours"),
    ("hr", "hour", "hours"),
    ("hrs", "hour", "hours"),
    ("Hz", "hertz", "hertz"),
    ("kHz", "kilohertz", "kilohertz"),
    ("MHz", "megahertz", "megahertz"),
    ("GHz", "gigahertz", "gigahertz"),
    ("KB", "kilobyte", "kilobytes"),
    ("kB", "kilobyte", "kilobytes"),
    ("MB", "megabyte", "megabytes"),
    ("GB", "gigabyte", "gigabytes"),
    ("TB", "terabyte", "terabytes"),
    ("W", "watt", "watts"),
    ("kW", "kilowatt", "kilowatts"),
    ("kWh", "kilowatt hour", "kilowatt hours"),
    ("V", "volt", "volts"),
    ("m²", "square meter", "square meters"),
    ("km²", "square kilometer", "square kilometers"),
    ("m³", "cubic meter", "cubic meters"),
    ("°C", "degree Celsius", "degrees Celsius"),
    ("°F", "degree Fahrenheit", "degrees Fahrenheit"),
    ("°", "degree", "degrees"),
    ("%", "percent", "percent"),
    ("dB", "decibel", "decibels"),
    ("px", "pixel", "pixels"),
];

/// Sign, singular, plural, singular and plural of the hundredth.
const CURRENCIES: &[(&str, &str, &str, &str, &str)] = &[
    ("$", "dollar", "dollars", "cent", "cents"),
    ("€", "euro", "euros", "cent", "cents"),
    ("£", "pound", "pounds", "penny", "pence"),
    ("¥", "yen", "yen", "", ""),
    ("₹", "rupee", "rupees", "paisa", "paise"),
];

const MAGNITUDES: [&str; 4] = ["thousand", "million", "billion", "trillion"];

pub(super) fn month(lower: &str) -> Option<usize> {
    MONTHS.iter().position(|(long, short)| {
        lower == *long || lower == *short || (*short == "sep" && lower == "sept")
    })
}

/// A number at the start of a text.
struct Number<'a> {
    integer: String,
    fraction: Option<&'a str>,
    grouped: bool,
    rest: &'a str,
}

fn number(text: &str) -> Option<Number<'_>> {
    let count = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
    let first = count(text);
    let mut end = first;
    let mut integer = text[..first].to_owned();
    while (1..=3).contains(&first) && text[end..].starts_with(',') && count(&text[end + 1..]) == 3 {
        integer.push_str(&text[end + 1..end + 4]);
        end += 4;
    }
    let grouped = end > first;
    let mut fraction = None;
    if text[end..].starts_with('.') {
        let digits = count(&text[end + 1..]);
        // "1.2.3" is not a decimal.
        let dotted = text[end + 1 + digits..]
            .strip_prefix('.')
            .is_some_and(|rest| count(rest) > 0);
        if digits > 0 && !dotted {
            fraction = Some(&text[end + 1..end + 1 + digits]);
            end += 1 + digits;
        }
    }
    if integer.is_empty() && fraction.is_none() {
        return None;
    }
    Some(Number {
        integer,
        fraction,
        grouped,
        rest: &text[end..],
    })
}

impl Number<'_> {
    fn value(&self) -> Option<u64> {
        if self.integer.is_empty() {
            Some(0)
        } else {
            self.integer.parse().ok()
        }
    }

    /// In words, read as a quantity.
    fn words(&self) -> String {
        let zeros = self.integer.len() > 1 && self.integer.starts_with('0');
        let whole = match self.value() {
            Some(n) if !zeros => cardinal(n),
            _ => digits(&self.integer),
        };
        match self.fraction {
            Some(fraction) => format!("{whole} point {}", digits(fraction)),
            None => whole,
        }
    }

    fn is_one(&self) -> bool {
        self.integer == "1" && self.fraction.is_none()
    }

    fn is_year(&self) -> bool {
        !self.grouped
            && self.fraction.is_none()
            && self.integer.len() == 4
            && self.value().is_some_and(|n| (1100..2100).contains(&n))
    }
}

pub(super) fn say_number(core: &str, prev: &str, next: &str) -> Option<String> {
    for (sign, word) in [
        ("-", "minus"),
        ("−", "minus"),
        ("+", "plus"),
        ("±", "plus or minus"),
        ("~", "about"),
        ("≈", "about"),
        ("<", "less than"),
        (">", "more than"),
        ("≤", "at most"),
        ("≥", "at least"),
    ] {
        if let Some(rest) = core.strip_prefix(sign) {
            if sign == "+"
                && rest.len() >= 7
                && rest.bytes().all(|b| b.is_ascii_digit() || b == b'-')
            {
                return Some(format!("plus {}", digits(rest)));
            }
            return say_number(rest, prev, next).map(|said| format!("{word} {said}"));
        }
    }
    for currency in CURRENCIES {
        if let Some(rest) = core.strip_prefix(currency.0) {
            return say_money(number(rest)?, currency, next);
        }
    }
    let number = number(core)?;
    say_counted(&number, prev, next)
}

fn say_money(
    n: Number<'_>,
    currency: &(&str, &str, &str, &str, &str),
    next: &str,
) -> Option<String> {
    let (_, one, many, cent, cents) = *currency;
    if let Some(magnitude) = magnitude(n.rest) {
        return Some(format!("{} {magnitude} {many}", n.words()));
    }
    if n.rest.is_empty() && MAGNITUDES.contains(&next) {
        // "$5 million": the currency is said after the magnitude.
        return Some(n.words());
    }
    if let Some(range) = n.rest.strip_prefix(['-', '–', '—']) {
        let range = range.strip_prefix(currency.0).unwrap_or(range);
        let to = say_money(number(range)?, currency, next)?;
        return Some(format!("{} to {to}", n.words()));
    }
    if let Some(per) = per(n.rest) {
        let rest = "";
        return say_money(Number { rest, ..n }, currency, "").map(|said| format!("{said} {per}"));
    }
    if !n.rest.is_empty() {
        return None;
    }
    let unit = if n.is_one() { one } else { many };
    match n.fraction {
        Some(fraction) if fraction.len() == 2 && !cent.is_empty() => {
            let hundredths: u64 = fraction.parse().ok()?;
            let whole = n.value()?;
            let small = if hundredths == 1 { cent } else { cents };
            let whole_unit = if whole == 1 { one } else { many };
            Some(match (whole, hundredths) {
                (_, 0) => format!("{} {whole_unit}", cardinal(whole)),
                (0, _) => format!("{} {small}", cardinal(hundredths)),
                _ => format!(
                    "{} {whole_unit} and {} {small}",
                    cardinal(whole),
                    cardinal(hundredths)
                ),
            })
        }
        _ => Some(format!("{} {unit}", n.words())),
    }
}

/// `k`, `M`, ... right after a number.
fn magnitude(text: &str) -> Option<&'static str> {
    Some(match text {
        "k" | "K" => "thousand",
        "M" => "million",
        "B" | "bn" => "billion",
        "T" => "trillion",
        _ => return None,
    })
}

/// A number that is not money, with what hangs on it.
fn say_counted(n: &Number<'_>, prev: &str, next: &str) -> Option<String> {
    let value = n.value();
    let plain = n.fraction.is_none() && !n.grouped;
    let rest = n.rest;
    if rest.is_empty() {
        return Some(match value {
            Some(911) if plain => digits(&n.integer),
            Some(day @ 1..=31) if plain && month(prev).is_some() => ordinal(day),
            Some(day @ 1..=31) if plain && month(next).is_some() => {
                format!("the {} of", ordinal(day))
            }
            // "1500 meters" counts; "1995" and "1995 was" do not.
            Some(y) if n.is_year() && !counts(next) => year(y),
            _ => n.words(),
        });
    }
    if plain && let Some(value) = value {
        match rest {
            "st" | "nd" | "rd" | "th" => return Some(ordinal(value)),
            "s" | "'s" if n.is_year() && value.is_multiple_of(10) => {
                return Some(plural(&year(value)));
            }
            "s" if n.integer.len() == 2 && value.is_multiple_of(10) && value >= 20 => {
                return Some(plural(&cardinal(value)));
            }
            _ => {}
        }
        if let Some(said) = say_time(value, rest) {
            return Some(said);
        }
    }
    match rest {
        "x" | "×" => return Some(format!("{} times", n.words())),
        "+" => return Some(format!("{} plus", n.words())),
        _ => {}
    }
    if let Some(half) = half_day(rest) {
        return Some(format!("{} {half}", n.words()));
    }
    if let Some((_, one, many)) = UNITS.iter().find(|(written, _, _)| *written == rest) {
        return Some(format!(
            "{} {}",
            n.words(),
            if n.is_one() { one } else { many }
        ));
    }
    if let Some(name) = magnitude(rest) {
        return Some(format!("{} {name}", n.words()));
    }
    if let Some((_, one, many, ..)) = CURRENCIES.iter().find(|currency| currency.0 == rest) {
        return Some(format!(
            "{} {}",
            n.words(),
            if n.is_one() { one } else { many }
        ));
    }
    let mut chars = rest.chars();
    let mark = chars.next()?;
    let after = chars.as_str();
    match mark {
        '-' | '–' | '—' => say_joined(n, after, prev, next),
        '/' if per(rest).is_some() => per(rest).map(|per| format!("{} {per}", n.words())),
        '/' if plain => say_slashed(n, after),
        'x' | '×' if after.starts_with(|c: char| c.is_ascii_digit()) => {
            Some(format!("{} by {}", n.words(), say_number(after, "", next)?))
        }
        '.' if after.starts_with(|c: char| c.is_ascii_digit()) => {
            let parts = after
                .split('.')
                .map(|part| part.parse::<u64>().ok().map(cardinal));
            let parts: Option<Vec<String>> = parts.collect();
            Some(format!("{} point {}", n.words(), parts?.join(" point ")))
        }
        _ => None,
    }
}

/// `/month`: "per month".
fn per(rest: &str) -> Option<String> {
    let word = rest.strip_prefix('/')?;
    let long = match word {
        "mo" => "month",
        "yr" | "y" => "year",
        "wk" => "week",
        "d" => "day",
        "h" | "hr" => "hour",
        _ => word,
    };
    let letters = !long.is_empty() && long.chars().all(char::is_alphabetic);
    letters.then(|| format!("per {long}"))
}

/// Whether `next` names things that are counted: a plural, or a unit.
fn counts(next: &str) -> bool {
    let verb = [
        "was", "is", "has", "as", "this", "its", "his", "us", "yes", "does",
    ];
    MAGNITUDES.contains(&next)
        || next == "people"
        || UNITS
            .iter()
            .any(|(written, _, _)| *written == next && written.len() > 1)
        || (next.len() > 3 && next.ends_with('s') && !verb.contains(&next))
}

fn half_day(text: &str) -> Option<&'static str> {
    match text.to_lowercase().as_str() {
        "am" | "a.m" | "a.m." => Some("A M"),
        "pm" | "p.m" | "p.m." => Some("P M"),
        _ => None,
    }
}

/// `3` and `:30pm`.
fn say_time(hour: u64, rest: &str) -> Option<String> {
    let rest = rest.strip_prefix(':')?;
    let minute = rest.get(..2)?.parse::<u64>().ok().filter(|m| *m < 60)?;
    if hour > 24 {
        return None;
    }
    let rest = &rest[2..];
    let half = half_day(rest);
    let seconds = rest
        .strip_prefix(':')
        .and_then(|s| s.parse::<u64>().ok())
        .filter(|s| *s < 60);
    if half.is_none() && seconds.is_none() && !rest.is_empty() {
        return None;
    }
    let mut said = match (minute, half) {
        (0, Some(_)) => cardinal(hour),
        (0, None) if (1..=12).contains(&hour) => format!("{} o'clock", cardinal(hour)),
        (0, None) => format!("{} hundred", cardinal(hour)),
        (1..10, _) => format!("{} oh {}", cardinal(hour), cardinal(minute)),
        _ => format!("{} {}", cardinal(hour), cardinal(minute)),
    };
    if let Some(half) = half {
        said.push(' ');
        said.push_str(half);
    }
    if let Some(seconds) = seconds {
        said.push_str(&format!(" and {} seconds", cardinal(seconds)));
    }
    Some(said)
}

/// What a dash joins to a number: a date, a telephone number, a range, a word.
fn say_joined(n: &Number<'_>, after: &str, prev: &str, next: &str) -> Option<String> {
    let parts: Vec<&str> = after.split(['-', '–']).collect();
    let numeric = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if let ([m, d], true) = (parts.as_slice(), n.is_year())
        && numeric(m)
        && numeric(d)
        && let (Ok(m @ 1..=12), Ok(d @ 1..=31)) = (m.parse::<usize>(), d.parse::<u64>())
    {
        return Some(format!(
            "{} {}, {}",
            capital(MONTHS[m - 1].0),
            ordinal(d),
            year(n.value()?)
        ));
    }
    if numeric(&n.integer) && n.fraction.is_none() && parts.iter().all(|p| numeric(p)) {
        let telephone = parts.len() >= 2 || (n.integer.len() == 3 && parts[0].len() == 4);
        if telephone {
            let groups: Vec<String> = std::iter::once(n.integer.as_str())
                .chain(parts.iter().copied())
                .map(digits)
                .collect();
            return Some(groups.join(", "));
        }
    }
    if after.starts_with(|c: char| c.is_ascii_digit()) {
        let from = if n.is_year() && !counts(next) {
            year(n.value()?)
        } else {
            n.words()
        };
        return Some(format!("{from} to {}", say_number(after, prev, next)?));
    }
    // "5-year", "20-something".
    after
        .starts_with(char::is_alphabetic)
        .then(|| format!("{} {}", n.words(), say_mixed(after)))
}

/// `3/4`, `24/7`, `3/4/2025`.
fn say_slashed(n: &Number<'_>, after: &str) -> Option<String> {
    let value = n.value()?;
    let parts: Option<Vec<u64>> = after.split('/').map(|part| part.parse().ok()).collect();
    match parts?.as_slice() {
        [7] if value == 24 => Some("twenty-four seven".to_owned()),
        [2] if value == 1 => Some("one half".to_owned()),
        [under @ (3 | 4 | 5 | 8 | 10)] if (1..*under).contains(&value) => {
            let part = if *under == 4 {
                "quarter".to_owned()
            } else {
                ordinal(*under)
            };
            Some(format!(
                "{} {part}{}",
                cardinal(value),
                if value == 1 { "" } else { "s" }
            ))
        }
        [under] => Some(format!("{} over {}", cardinal(value), cardinal(*under))),
        // The American order, as most text that models write.
        [d @ 1..=31, y @ 1100..2100] if (1..=12).contains(&value) => {
            let month = capital(MONTHS[value as usize - 1].0);
            Some(format!("{month} {}, {}", ordinal(*d), year(*y)))
        }
        _ => None,
    }
}

fn capital(word: &str) -> String {
    let mut chars = word.chars();
    chars
        .next()
        .map(|c| c.to_uppercase().chain(chars).collect())
        .unwrap_or_default()
}

/// `core` as a unit, or a magnitude of money, where a number stands before it.
pub(super) fn unit_after(prev: &str, core: &str) -> Option<String> {
    let number = number(prev).filter(|n| n.rest.is_empty())?;
    // Letters that are words of their own ("5 V", "3 s") are too bold a guess, but for the usual ones.
    let bold = core.len() == 1 && !matches!(core, "m" | "g" | "%" | "°");
    let (_, one, many) = UNITS
        .iter()
        .find(|(written, _, _)| *written == core && !bold)?;
    Some(if number.is_one() { one } else { many }.to_string())
}

/// "million" after "$5": the sign was before the number, and is said after the magnitude.
pub(super) fn money_after(prev: &str, core: &str) -> Option<String> {
    let money = CURRENCIES
        .iter()
        .find(|currency| prev.starts_with(currency.0))?;
    MAGNITUDES
        .contains(&core.to_lowercase().as_str())
        .then(|| format!("{core} {}", money.2))
}
