//! Kubernetes resource quantities: comparing and adding.

use std::cmp::Ordering;
use std::fmt;

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

    pub(crate) fn from_integer(whole: i64) -> Self {
        Self::normal(whole.into(), 0)
    }

    pub(crate) fn negated(self) -> Self {
        Quantity { mantissa: -self.mantissa, exponent: self.exponent }
    }

    /// The value as a whole number, if it is one.
    pub(crate) fn as_integer(self) -> Option<i64> {
        let by = 10_i128.checked_pow(u32::try_from(self.exponent).ok()?)?;
        self.mantissa.checked_mul(by)?.try_into().ok()
    }

    /// The value as nearly as floating point has it.
    #[expect(clippy::cast_precision_loss, reason = "that is the point")]
    pub(crate) fn as_float(self) -> f64 {
        self.mantissa as f64 * 10_f64.powi(self.exponent)
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

/// In the decimal form that Kubernetes reads: whole numbers, or thousandths.
impl fmt::Display for Quantity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.mantissa, self.exponent) {
            (mantissa, exponent @ 0..=18) => {
                write!(formatter, "{mantissa}{:0<1$}", "", usize::try_from(exponent).unwrap_or_default())
            }
            (mantissa, exponent @ -3..0) => {
                write!(formatter, "{mantissa}{:0<1$}m", "", usize::try_from(3 + exponent).unwrap_or_default())
            }
            (mantissa, exponent) => write!(formatter, "{mantissa}e{exponent}"),
        }
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
    fn quantities_are_ordered_added_and_written() {
        let quantity = |text| Quantity::parse(text).unwrap();
        for (less, more) in
            [("1m", "1"), ("-1", "0"), ("1Mi", "1Gi"), ("999m", "1"), ("-2E", "-1m"), ("1m", "9E")]
        {
            assert!(quantity(less) < quantity(more), "{less} {more}");
            assert!(quantity(more) > quantity(less), "{less} {more}");
        }
        for (one, other, sum) in [
            ("100m", "0.4", "500m"),
            ("1Gi", "1Mi", "1074790400"),
            ("1", "-1", "0"),
            ("1k", "1m", "1000001m"),
            ("990m", "10m", "1"),
        ] {
            assert_eq!(quantity(one).plus(quantity(other)).unwrap().to_string(), sum, "{one} {other}");
            assert_eq!(quantity(sum), quantity(one).plus(quantity(other)).unwrap());
        }
        assert_eq!(quantity("1500m").as_integer(), None);
        assert_eq!(quantity("2k").as_integer(), Some(2000));
        assert!((quantity("1500m").as_float() - 1.5).abs() < 1e-9);
    }

    #[test]
    fn what_is_no_quantity_is_none() {
        for text in ["", ".", "-", "1x", "Mi", "1.2.3", "1-2", "--1", "9".repeat(60).as_str(), "1e999"] {
            assert_eq!(Quantity::parse(text), None, "{text}");
        }
    }
}
