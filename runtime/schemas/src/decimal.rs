//! Decimal numbers of any precision as text: nothing is rounded.
//!
//! Reads big-endian two's complement, as Avro and Protobuf hold them. Used by the decoders of both.

use crate::compiled::Mistake;

/// The longest number in bytes: 600 digits.
const MAX_BYTES: usize = 256;

/// Digits after the point at most, and zeros before it that no byte stands for.
pub(crate) const MAX_SCALE: i64 = 1_000;

/// One limb's worth of decimal digits.
const BILLION: u64 = 1_000_000_000;

/// The number as text: `-12.50` for -1250 with a scale of 2.
pub(crate) fn text(bytes: &[u8], scale: i64) -> Result<String, Mistake> {
    if bytes.len() > MAX_BYTES || !(-MAX_SCALE..=MAX_SCALE).contains(&scale) {
        let message = format!("a decimal has {} bytes and a scale of {scale}; it is too large", bytes.len());
        return Err(Mistake::new("too_large", message));
    }
    let negative = bytes.first().is_some_and(|byte| byte & 0x80 != 0);
    let mut digits = digits(magnitude(bytes, negative));
    match usize::try_from(scale) {
        Ok(0) => {}
        Ok(scale) => {
            if digits.len() <= scale {
                digits.insert_str(0, &"0".repeat(scale + 1 - digits.len()));
            }
            digits.insert(digits.len() - scale, '.');
        }
        Err(_) if digits == "0" => {}
        Err(_) => digits.push_str(&"0".repeat(usize::try_from(-scale).unwrap_or_default())),
    }
    if negative {
        digits.insert(0, '-');
    }
    Ok(digits)
}

/// The number without its sign, in limbs of 32 bits, the greatest first.
fn magnitude(bytes: &[u8], negative: bool) -> Vec<u32> {
    let fill = if negative { 0xFF } else { 0 };
    let mut padded = vec![fill; (4 - bytes.len() % 4) % 4];
    padded.extend_from_slice(bytes);
    let mut limbs: Vec<u32> =
        padded.chunks_exact(4).map(|four| four.iter().fold(0, |limb, byte| limb << 8 | u32::from(*byte))).collect();
    if negative {
        let mut carry = true;
        for limb in limbs.iter_mut().rev() {
            let (next, overflow) = (!*limb).overflowing_add(u32::from(carry));
            (*limb, carry) = (next, overflow);
        }
    }
    limbs
}

/// Divides by a billion until nothing is left.
fn digits(mut limbs: Vec<u32>) -> String {
    let mut groups = vec![];
    while limbs.iter().any(|limb| *limb != 0) {
        let mut rest = 0u64;
        for limb in &mut limbs {
            let number = rest << 32 | u64::from(*limb);
            // The quotient fits: the rest is below the divisor.
            *limb = u32::try_from(number / BILLION).unwrap_or(u32::MAX);
            rest = number % BILLION;
        }
        groups.push(rest);
    }
    let mut text = groups.pop().unwrap_or_default().to_string();
    for group in groups.iter().rev() {
        text.push_str(&format!("{group:09}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn decimals_are_exact() {
        for (bytes, scale, expected) in [
            (&[][..], 0, "0"),
            (&[0], 2, "0.00"),
            (&[0x04, 0xE2], 2, "12.50"),
            (&[0xFB, 0x1E], 2, "-12.50"),
            (&[0xFF], 3, "-0.001"),
            (&[0x80], 0, "-128"),
            (&[0x7B], -2, "12300"),
            (&[0], -2, "0"),
            (&[0x01, 0, 0, 0, 0, 0, 0, 0, 0], 0, "18446744073709551616"),
            (&[0x80, 0, 0, 0], 0, "-2147483648"),
        ] {
            assert_eq!(text(bytes, scale).unwrap(), expected, "{bytes:?}");
        }
        assert!(text(&[1; 257], 0).is_err() && text(&[1], 1_001).is_err() && text(&[1], i64::MIN).is_err());
    }

    proptest! {
        #[test]
        fn they_read_as_the_numbers_that_they_are(number: i128) {
            prop_assert_eq!(text(&number.to_be_bytes(), 0).unwrap(), number.to_string());
        }
    }
}
