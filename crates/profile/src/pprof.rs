//! pprof's format: the message `Profile` of github.com/google/pprof, `proto/profile.proto`; of it, what a profile
//! without lines and mappings has.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use prost::Message;

use crate::Profile;

#[derive(Clone, PartialEq, Message)]
struct Pprof {
    #[prost(message, repeated, tag = "1")]
    sample_type: Vec<ValueType>,
    #[prost(message, repeated, tag = "2")]
    sample: Vec<Sample>,
    #[prost(message, repeated, tag = "4")]
    location: Vec<Location>,
    #[prost(message, repeated, tag = "5")]
    function: Vec<Function>,
    #[prost(string, repeated, tag = "6")]
    string_table: Vec<String>,
    #[prost(int64, tag = "9")]
    time_nanos: i64,
    #[prost(int64, tag = "10")]
    duration_nanos: i64,
    #[prost(message, optional, tag = "11")]
    period_type: Option<ValueType>,
    #[prost(int64, tag = "12")]
    period: i64,
    #[prost(int64, repeated, tag = "13")]
    comment: Vec<i64>,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct ValueType {
    #[prost(int64, tag = "1")]
    kind: i64,
    #[prost(int64, tag = "2")]
    unit: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Sample {
    /// The innermost first.
    #[prost(uint64, repeated, tag = "1")]
    location_id: Vec<u64>,
    #[prost(int64, repeated, tag = "2")]
    value: Vec<i64>,
    #[prost(message, repeated, tag = "3")]
    label: Vec<Label>,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct Label {
    #[prost(int64, tag = "1")]
    key: i64,
    #[prost(int64, tag = "2")]
    str: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Location {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(message, repeated, tag = "4")]
    line: Vec<Line>,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct Line {
    #[prost(uint64, tag = "1")]
    function_id: u64,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct Function {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(int64, tag = "2")]
    name: i64,
    #[prost(int64, tag = "3")]
    system_name: i64,
}

/// Texts, each once. The first is empty, as the format wants it.
struct Texts {
    numbers: HashMap<Arc<str>, i64>,
    texts: Vec<String>,
}

impl Texts {
    fn number(&mut self, text: &Arc<str>) -> i64 {
        if let Some(number) = self.numbers.get(text) {
            return *number;
        }
        let number = self.texts.len() as i64;
        self.texts.push(text.as_ref().to_owned());
        self.numbers.insert(Arc::clone(text), number);
        number
    }
}

pub fn encode(profile: &Profile) -> Vec<u8> {
    let mut texts = Texts {
        numbers: HashMap::from([(Arc::from(""), 0)]),
        texts: vec![String::new()],
    };
    let mut value_type = |kind: &str, unit: &str| ValueType {
        kind: texts.number(&kind.into()),
        unit: texts.number(&unit.into()),
    };
    let (samples, cpu) = (
        value_type("samples", "count"),
        value_type("cpu", "nanoseconds"),
    );
    let mut made = Pprof {
        sample_type: vec![samples, cpu],
        time_nanos: nanos(
            profile
                .began()
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default(),
        ),
        duration_nanos: nanos(profile.lasted()),
        period_type: Some(cpu),
        period: nanos(profile.period()),
        ..Pprof::default()
    };
    if profile.lost() > 0 {
        let comment = format!("{} samples were lost", profile.lost());
        made.comment.push(texts.number(&comment.into()));
    }
    let mut places: HashMap<Arc<str>, u64> = HashMap::new();
    for stack in profile.stacks() {
        let mut location_id = Vec::with_capacity(stack.frames.len());
        for frame in stack.frames.iter().rev() {
            let next = places.len() as u64 + 1;
            let id = *places.entry(Arc::clone(frame)).or_insert(next);
            if id == next {
                let name = texts.number(frame);
                made.function.push(Function {
                    id,
                    name,
                    system_name: name,
                });
                made.location.push(Location {
                    id,
                    line: vec![Line { function_id: id }],
                });
            }
            location_id.push(id);
        }
        let thread = stack.frames.first().map(|thread| Label {
            key: texts.number(&"thread".into()),
            str: texts.number(&thread.trim_matches(['[', ']']).into()),
        });
        let count = i64::try_from(stack.samples).unwrap_or(i64::MAX);
        made.sample.push(Sample {
            location_id,
            value: vec![count, count.saturating_mul(nanos(profile.period()))],
            label: thread.into_iter().collect(),
        });
    }
    made.string_table = texts.texts;
    made.encode_to_vec()
}

fn nanos(time: Duration) -> i64 {
    i64::try_from(time.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::profile::example;

    #[test]
    fn it_reads_back_with_each_function_once_and_the_innermost_frame_first() {
        let read = Pprof::decode(&*example().to_pprof()).unwrap();
        let text = |number: i64| read.string_table[number as usize].as_str();
        assert_eq!(text(0), "");
        assert_eq!(read.function.len(), 7);
        let sample = &read.sample[1];
        let names: Vec<&str> = sample
            .location_id
            .iter()
            .map(|id| {
                let location = read.location.iter().find(|l| l.id == *id).unwrap();
                let function = location.line[0].function_id;
                let function = read.function.iter().find(|f| f.id == function).unwrap();
                text(function.name)
            })
            .collect();
        assert_eq!(names, ["memcpy", "take<[u8; 4]>", "main", "[ear-0]"]);
        assert_eq!(sample.value, [10, 100_000_000]);
        let label = sample.label[0];
        assert_eq!((text(label.key), text(label.str)), ("thread", "ear-0"));
        assert_eq!(text(read.sample_type[1].unit), "nanoseconds");
        assert_eq!(text(read.comment[0]), "3 samples were lost");
        assert_eq!(read.time_nanos, 5_000_000_000);
    }
}
