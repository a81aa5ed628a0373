//! Whether an ONNX file is whole, as far as lengths go.
//!
//! The reader of ONNX files makes room for as many bytes as a file says that a text has, before it looks whether they
//! are there; a damaged file so ends the process for want of memory. Here every length is held against what is left,
//! without a copy of anything. (Protocol Buffers' encoding; the messages of `onnx.proto`.)

/// Messages within messages; graphs in attributes are the deepest.
const DEEPEST: u32 = 64;

/// A message of `onnx.proto`, by what other messages are in it.
#[derive(Clone, Copy)]
enum Message {
    Model,
    Graph,
    Node,
    Attribute,
    ValueInfo,
    Type,
    TensorType,
    Shape,
    Tensor,
    /// None that matter.
    Flat,
}

impl Message {
    /// The message that a field holds; `None`: bytes, text or numbers.
    fn child(self, field: u64) -> Option<Self> {
        Some(match (self, field) {
            (Self::Model, 7) | (Self::Attribute, 6 | 11) => Self::Graph,
            (Self::Graph, 1) => Self::Node,
            (Self::Graph, 5) | (Self::Attribute, 5 | 10) => Self::Tensor,
            (Self::Graph, 11..=13) => Self::ValueInfo,
            (Self::Node, 5) => Self::Attribute,
            (Self::ValueInfo, 2) | (Self::Attribute, 14 | 15) => Self::Type,
            (Self::Type, 1) => Self::TensorType,
            (Self::TensorType, 2) => Self::Shape,
            (Self::Shape, 1)
            | (Self::Tensor, 13)
            | (Self::Model, 8 | 14 | 20 | 25)
            | (Self::Graph, 14..=16) => Self::Flat,
            _ => return None,
        })
    }
}

/// Looks through a file.
///
/// # Errors
/// What is wrong, for a person.
pub(super) fn check(onnx: &[u8]) -> Result<(), String> {
    walk(onnx, Message::Model, DEEPEST)
}

fn walk(mut rest: &[u8], message: Message, deeper: u32) -> Result<(), String> {
    while !rest.is_empty() {
        let tag = number(&mut rest)?;
        let skipped = match tag & 7 {
            0 => {
                number(&mut rest)?;
                continue;
            }
            1 => 8,
            2 => number(&mut rest)?,
            5 => 4,
            other => return Err(format!("it has a field of the unknown kind {other}")),
        };
        let held = usize::try_from(skipped)
            .ok()
            .and_then(|length| rest.split_at_checked(length));
        let Some((inside, after)) = held else {
            return Err(format!(
                "it is cut short or damaged: {skipped} bytes should follow where {} are left",
                rest.len()
            ));
        };
        if tag & 7 == 2
            && let Some(child) = message.child(tag >> 3)
        {
            let deeper = deeper
                .checked_sub(1)
                .ok_or("its graphs are nested too deep")?;
            walk(inside, child, deeper)?;
        }
        rest = after;
    }
    Ok(())
}

/// A number of variable length: seven bits a byte, the lowest first.
fn number(rest: &mut &[u8]) -> Result<u64, String> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let Some((byte, after)) = rest.split_first() else {
            return Err("it is cut short".to_owned());
        };
        *rest = after;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err("it has a number of more than 64 bits".to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// A field that holds bytes.
    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        let mut out = vec![number << 3 | 2, bytes.len() as u8];
        out.extend(bytes);
        out
    }

    fn model() -> Vec<u8> {
        let node = [field(1, b"in"), field(2, b"out"), field(4, b"Add")].concat();
        let tensor = [vec![8, 3], field(8, b"weights"), field(9, &[0; 12])].concat();
        let value = [field(1, b"in"), field(2, &field(1, &[8, 1]))].concat();
        let graph = [field(1, &node), field(5, &tensor), field(11, &value)].concat();
        [vec![8, 8], field(7, &graph)].concat()
    }

    #[test]
    fn a_whole_file_passes_and_one_cut_anywhere_within_a_field_does_not() {
        let model = model();
        check(&model).unwrap();
        for end in 3..model.len() {
            assert!(check(&model[..end]).is_err(), "cut after {end}");
        }
    }

    #[test]
    fn a_text_that_would_take_gigabytes_is_found_wherever_it_stands() {
        let huge = [0xff, 0xff, 0xff, 0xff, 0x7f];
        for (outer, number) in [(1, 4), (1, 1), (5, 8), (11, 1)] {
            let text = [&[number << 3 | 2][..], &huge].concat();
            let damaged = field(7, &field(outer, &text));
            let told = check(&damaged).unwrap_err();
            assert!(told.contains("34359738367 bytes"), "{told}");
        }
        assert!(
            check(&[0x0a, 0x80, 0x80])
                .unwrap_err()
                .contains("cut short")
        );
        assert!(check(&[0xff; 11]).is_err());
    }

    #[test]
    fn graphs_within_graphs_end_somewhere() {
        let mut nested = Vec::new();
        for _ in 0..40 {
            // A graph's node's attribute's graph. Long lengths need more than a byte, so the outer ones are cut off.
            nested = field(1, &field(5, &field(6, &nested)));
            if nested.len() > 110 {
                break;
            }
        }
        check(&field(7, &nested)).unwrap();
        assert!(walk(&nested, Message::Graph, 3).is_err());
    }
}
