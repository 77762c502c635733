//! Kubernetes resource quantities: comparing and adding.

use std::cmp::Ordering;

/// A quantity as a decimal: `mantissa * 10^exponent`, without trailing zeros in the mantissa.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Quantity {
    mantissa: i128,
    exponent: i32,
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        match self.aligned(*other) {
            Some((one, other)) => one.cmp(&other),
            // Too far apart to be written with one exponent: the sign decides, then the larger exponent.
            None => self.mantissa.signum().cmp(&other.mantissa.signum()).then_with(|| {
                let larger = self.exponent.cmp(&other.exponent);
                if self.mantissa < 0 { larger.reverse() } else { larger }
            }),
        }
    }
}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Quantity {
    pub(crate) const ZERO: Quantity = Quantity { mantissa: 0, exponent: 0 };

    /// The sum; `None` when it has more digits than can be counted exactly.
    pub(crate) fn plus(self, other: Self) -> Option<Self> {
        let (one, two) = self.aligned(other)?;
        Some(Self::normal(one.checked_add(two)?, self.exponent.min(other.exponent)))
    }

    /// The two mantissas for the smaller of the two exponents.
    fn aligned(self, other: Self) -> Option<(i128, i128)> {
        let exponent = self.exponent.min(other.exponent);
        let scaled = |quantity: Quantity| {
            let by = 10_i128.checked_pow(u32::try_from(quantity.exponent - exponent).ok()?)?;
            quantity.mantissa.checked_mul(by)
        };
        Some((scaled(self)?, scaled(other)?))
    }

    /// Reads a quantity as apimachinery does (pkg/api/resource/quantity.go); `None` for what is none, or for one
    /// with more digits than can be compared exactly.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let number_end = text.find(|c: char| !matches!(c, '0'..='9' | '.' | '+' | '-')).unwrap_or(text.len());
        let (number, suffix) = text.split_at(number_end);
        let unsigned = number.strip_prefix(['+', '-']).unwrap_or(number);
        let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
        if whole.len() + fraction.len() == 0
            || !unsigned.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
        {
            return None;
        }
        let mut mantissa: i128 = 0;
        for digit in whole.bytes().chain(fraction.bytes()) {
            mantissa = mantissa.checked_mul(10)?.checked_add(i128::from(digit.checked_sub(b'0')?))?;
        }
        if number.starts_with('-') {
            mantissa = -mantissa;
        }
        let (binary, decimal) = scale(suffix)?;
        Some(Self::rounded(mantissa.checked_mul(1 << binary)?, decimal - i32::try_from(fraction.len()).ok()?))
    }

    /// As the API server stores it: rounded up to thousandths (pkg/apis/core/v1/defaults.go, `SetDefaults_ResourceList`).
    fn rounded(mut mantissa: i128, mut exponent: i32) -> Self {
        while exponent < -3 {
            let up = mantissa > 0 && mantissa % 10 != 0;
            mantissa = mantissa / 10 + i128::from(up);
            exponent += 1;
        }
        Self::normal(mantissa, exponent)
    }

    fn normal(mut mantissa: i128, mut exponent: i32) -> Self {
        if mantissa == 0 {
            exponent = 0;
        }
        while mantissa != 0 && mantissa % 10 == 0 {
            mantissa /= 10;
            exponent += 1;
        }
        Quantity { mantissa, exponent }
    }
}

/// A suffix as powers of two and of ten.
fn scale(suffix: &str) -> Option<(u32, i32)> {
    Some(match suffix {
        "" => (0, 0),
        "n" => (0, -9),
        "u" => (0, -6),
        "m" => (0, -3),
        "k" => (0, 3),
        "M" => (0, 6),
        "G" => (0, 9),
        "T" => (0, 12),
        "P" => (0, 15),
        "E" => (0, 18),
        "Ki" => (10, 0),
        "Mi" => (20, 0),
        "Gi" => (30, 0),
        "Ti" => (40, 0),
        "Pi" => (50, 0),
        "Ei" => (60, 0),
        _ => (0, suffix.strip_prefix(['e', 'E'])?.parse::<i8>().ok()?.into()),
    })
}

#[cfg(test)]
mod tests {
    use super::Quantity;

    #[test]
    fn equal_quantities_are_equal_however_they_are_written() {
        for (one, other) in [
            ("0.5", "500m"),
            ("1024Mi", "1Gi"),
            ("1000", "1k"),
            ("1e3", "1k"),
            ("1E3", "1000"),
            ("0", "0m"),
            ("-1", "-1000m"),
            ("+1", "1"),
            (".5", "500m"),
            ("1.5Gi", "1536Mi"),
            ("2000u", "2m"),
            ("2000000n", "2m"),
            ("2000000001n", "2001m"),
            ("1M", "1000k"),
            ("1G", "1000M"),
            ("1T", "1000G"),
            ("1P", "1000T"),
            ("1E", "1000P"),
            ("1Ki", "1024"),
            ("1Mi", "1024Ki"),
            ("1Gi", "1073741824"),
            ("1Ti", "1024Gi"),
            ("1Pi", "1024Ti"),
            ("1Ei", "1024Pi"),
            ("100u", "1m"),
            ("1.0001", "1001m"),
            ("1000u", "1m"),
        ] {
            assert!(Quantity::parse(one).is_some(), "{one}");
            assert_eq!(Quantity::parse(one), Quantity::parse(other), "{one} {other}");
        }
        assert_ne!(Quantity::parse("1G"), Quantity::parse("1Gi"));
        assert_ne!(Quantity::parse("1"), Quantity::parse("-1"));
        assert_ne!(Quantity::parse("1m"), Quantity::parse("2m"));
    }

    #[test]
    fn what_is_no_quantity_is_none() {
        for text in ["", ".", "-", "1x", "Mi", "1.2.3", "1-2", "--1", "9".repeat(60).as_str(), "1e999"] {
            assert_eq!(Quantity::parse(text), None, "{text}");
        }
    }
}
