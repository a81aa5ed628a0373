//! Reading CTranslate2's `model.bin`.
//!
//! The file is a list of named arrays: name, shape, type, bytes (format versions 4 to 6, written by
//! CTranslate2's converters; numbers little-endian, a string is its length with the closing zero, 16 bits, and
//! its bytes).

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

/// Arrays of 32-bit floats, by name.
pub(super) struct Weights(HashMap<String, Array>);

/// An array and its shape.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Array {
    pub shape: Vec<usize>,
    pub data: Vec<f32>,
}

impl Weights {
    /// Reads every array whose name starts with `prefix`, which is taken off.
    pub(super) fn read(file: &Path, prefix: &str) -> Result<Self, String> {
        let read =
            || -> io::Result<Self> { Self::parse(&mut BufReader::new(File::open(file)?), prefix) };
        read().map_err(|e| format!("{}: {e}", file.display()))
    }

    fn parse(from: &mut (impl Read + Seek), prefix: &str) -> io::Result<Self> {
        const VERSIONS: std::ops::RangeInclusive<u32> = 4..=6;
        let bad = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
        let version = u32(from)?;
        if !VERSIONS.contains(&version) {
            return Err(bad(format!("format version {version}; 4 to 6 are known")));
        }
        let _spec = string(from)?;
        let _revision = u32(from)?;
        let mut arrays = HashMap::new();
        for _ in 0..u32(from)? {
            let name = string(from)?;
            let rank = byte(from)?;
            let shape = (0..rank)
                .map(|_| Ok(u32(from)? as usize))
                .collect::<io::Result<Vec<_>>>()?;
            let kind = byte(from)?;
            let bytes = u32(from)?;
            match name.strip_prefix(prefix) {
                Some(name) => {
                    let mut raw = Vec::new();
                    from.by_ref().take(u64::from(bytes)).read_to_end(&mut raw)?;
                    let data = floats(kind, &raw)
                        .ok_or_else(|| bad(format!("{name} has the unknown type {kind}")))?;
                    if data.len() != shape.iter().product::<usize>() {
                        return Err(bad(format!(
                            "{name} has {} values for the shape {shape:?}",
                            data.len()
                        )));
                    }
                    arrays.insert(name.to_owned(), Array { shape, data });
                }
                None => {
                    from.seek(SeekFrom::Current(i64::from(bytes)))?;
                }
            }
        }
        Ok(Self(arrays))
    }

    /// Takes a vector.
    pub(super) fn vector(&mut self, name: &str) -> Result<Vec<f32>, String> {
        self.0
            .remove(name)
            .map(|a| a.data)
            .ok_or_else(|| format!("model.bin lacks {name}"))
    }

    /// Takes a matrix, scaled back if it was stored in 8 bits.
    pub(super) fn matrix(&mut self, name: &str) -> Result<Array, String> {
        let mut array = self
            .0
            .remove(name)
            .ok_or_else(|| format!("model.bin lacks {name}"))?;
        let &[_, columns] = array.shape.as_slice() else {
            return Err(format!(
                "{name} in model.bin is no matrix: {:?}",
                array.shape
            ));
        };
        if let Some(scale) = self.0.remove(&format!("{name}_scale")) {
            for (row, scale) in array.data.chunks_exact_mut(columns).zip(scale.data) {
                row.iter_mut().for_each(|w| *w /= scale);
            }
        }
        Ok(array)
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }
}

fn floats(kind: u8, raw: &[u8]) -> Option<Vec<f32>> {
    let pair = |b: &[u8]| u16::from_le_bytes([b[0], b[1]]);
    Some(match kind {
        0 => raw
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
            .collect(),
        1 => raw.iter().map(|&b| f32::from(b.cast_signed())).collect(),
        2 => raw
            .chunks_exact(2)
            .map(|b| f32::from(pair(b).cast_signed()))
            .collect(),
        3 => raw
            .chunks_exact(4)
            .map(|b| i32::from_le_bytes([b[0], b[1], b[2], b[3]]) as f32)
            .collect(),
        4 => raw
            .chunks_exact(2)
            .map(|b| super::super::engine::half_to_float(pair(b)))
            .collect(),
        5 => raw
            .chunks_exact(2)
            .map(|b| f32::from_bits(u32::from(pair(b)) << 16))
            .collect(),
        _ => return None,
    })
}

fn byte(from: &mut impl Read) -> io::Result<u8> {
    let mut b = [0];
    from.read_exact(&mut b)?;
    Ok(b[0])
}

fn u32(from: &mut impl Read) -> io::Result<u32> {
    let mut b = [0; 4];
    from.read_exact(&mut b)?;
    Ok(u32::from_le_bytes(b))
}

fn string(from: &mut impl Read) -> io::Result<String> {
    let mut len = [0; 2];
    from.read_exact(&mut len)?;
    let mut bytes = vec![0; usize::from(u16::from_le_bytes(len))];
    from.read_exact(&mut bytes)?;
    bytes.pop();
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::io::Cursor;

    fn file(version: u32, arrays: &[(&str, &[u32], u8, &[u8])]) -> Cursor<Vec<u8>> {
        let mut out = version.to_le_bytes().to_vec();
        let string = |out: &mut Vec<u8>, s: &str| {
            out.extend((s.len() as u16 + 1).to_le_bytes());
            out.extend(s.as_bytes());
            out.push(0);
        };
        string(&mut out, "WhisperSpec");
        out.extend(3_u32.to_le_bytes());
        out.extend((arrays.len() as u32).to_le_bytes());
        for (name, shape, kind, data) in arrays {
            string(&mut out, name);
            out.push(shape.len() as u8);
            shape.iter().for_each(|d| out.extend(d.to_le_bytes()));
            out.push(*kind);
            out.extend((data.len() as u32).to_le_bytes());
            out.extend(*data);
        }
        Cursor::new(out)
    }

    #[test]
    fn every_type_of_number_becomes_a_float() {
        let scale: Vec<u8> = [2.0_f32, 4.0]
            .iter()
            .flat_map(|f| f.to_le_bytes())
            .collect();
        let mut file = file(
            6,
            &[
                ("encoder/w", &[1], 1, &[9]),
                ("decoder/w", &[2, 2], 1, &[2, 0xFE, 4, 8]),
                ("decoder/w_scale", &[2], 0, &scale),
                ("decoder/b", &[2], 4, &[0x00, 0x3C, 0x00, 0xC0]),
                ("decoder/c", &[1], 5, &[0x80, 0x3F]),
            ],
        );
        let mut weights = Weights::parse(&mut file, "decoder/").unwrap();
        assert_eq!(weights.matrix("w").unwrap().data, [1.0, -1.0, 1.0, 2.0]);
        assert_eq!(weights.vector("b").unwrap(), [1.0, -2.0]);
        assert_eq!(weights.vector("c").unwrap(), [1.0]);
        assert!(weights.vector("c").unwrap_err().contains("lacks c"));
    }

    #[test]
    fn a_file_of_another_format_or_cut_short_is_refused() {
        assert!(
            Weights::parse(&mut file(9, &[]), "")
                .err()
                .unwrap()
                .to_string()
                .contains("version 9")
        );
        let whole = file(6, &[("decoder/b", &[2], 4, &[0, 0, 0, 0])]).into_inner();
        assert!(
            Weights::parse(
                &mut Cursor::new(whole[..whole.len() - 1].to_vec()),
                "decoder/"
            )
            .is_err()
        );
        assert!(
            Weights::parse(&mut file(6, &[("decoder/b", &[3], 4, &[0, 0])]), "decoder/").is_err()
        );
    }
}
