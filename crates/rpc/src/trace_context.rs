//! A trace that goes on in another process: the W3C Trace Context header `traceparent`, as gRPC metadata.
//!
//! See <https://www.w3.org/TR/trace-context/>. Only version 00 is written, and of a later one what 00 knows is read.

use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};
use tonic::metadata::{MetadataMap, MetadataValue};

const TRACEPARENT: &str = "traceparent";

/// Tells the other side of a call to which span its own belong. Nothing is told where there is no span.
pub fn inject(context: &Context, metadata: &mut MetadataMap) {
    let span = context.span();
    let span = span.span_context();
    if !span.is_valid() {
        return;
    }
    let header = format!(
        "00-{}-{}-{:02x}",
        span.trace_id(),
        span.span_id(),
        span.trace_flags().to_u8()
    );
    // Hexadecimal digits and hyphens are fit for a header.
    if let Ok(value) = MetadataValue::try_from(header) {
        metadata.insert(TRACEPARENT, value);
    }
}

/// The span that the caller told of. What cannot be read is as good as not told.
#[must_use]
pub fn extract(metadata: &MetadataMap) -> Context {
    let told = metadata
        .get(TRACEPARENT)
        .and_then(|value| value.to_str().ok())
        .and_then(parse);
    match told {
        Some(span) => Context::new().with_remote_span_context(span),
        None => Context::new(),
    }
}

fn parse(header: &str) -> Option<SpanContext> {
    let mut parts = header.trim().split('-');
    let (version, trace, span, flags) =
        (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let lengths = [version.len(), trace.len(), span.len(), flags.len()];
    let digits = [version, trace, span, flags]
        .iter()
        .all(|part| part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')));
    let further = parts.next().is_some();
    if lengths != [2, 32, 16, 2] || !digits || version == "ff" || (version == "00" && further) {
        return None;
    }
    let flags = TraceFlags::new(u8::from_str_radix(flags, 16).ok()?) & TraceFlags::SAMPLED;
    let span = SpanContext::new(
        TraceId::from_hex(trace).ok()?,
        SpanId::from_hex(span).ok()?,
        flags,
        true,
        TraceState::default(),
    );
    span.is_valid().then_some(span)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const HEADER: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn read(header: &str) -> Option<SpanContext> {
        let mut metadata = MetadataMap::new();
        metadata.insert(TRACEPARENT, header.parse().unwrap());
        let context = extract(&metadata);
        let span = context.span().span_context().clone();
        span.is_valid().then_some(span)
    }

    #[test]
    fn what_one_side_tells_the_other_reads() {
        let mut metadata = MetadataMap::new();
        let span = parse(HEADER).unwrap();
        assert!(span.is_sampled());
        inject(
            &Context::new().with_remote_span_context(span),
            &mut metadata,
        );
        assert_eq!(metadata.get(TRACEPARENT).unwrap(), HEADER);
        let there = extract(&metadata);
        assert_eq!(
            there.span().span_context().trace_id().to_string(),
            "0af7651916cd43dd8448eb211c80319c"
        );
        assert!(there.span().span_context().is_remote());
    }

    #[test]
    fn without_a_span_nothing_is_told() {
        let mut metadata = MetadataMap::new();
        inject(&Context::new(), &mut metadata);
        assert!(metadata.is_empty());
        assert!(!extract(&metadata).span().span_context().is_valid());
    }

    #[test]
    fn a_header_that_breaks_the_rules_is_not_taken() {
        for bad in [
            "",
            "00",
            "00-0-0-00",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
        ] {
            assert_eq!(read(bad), None, "{bad}");
        }
        // A later version may say more.
        assert!(read("01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00-more").is_some());
    }
}
