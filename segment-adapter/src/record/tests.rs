//! Records in decompressed bytes, compared with the walk that keeps nothing.

use proptest::prelude::*;

use super::*;

fn views(bytes: &[u8], count: i32) -> Result<Vec<RecordView<'_>>, LogError> {
    Records::new(bytes, count).collect()
}

/// What the walk says of the same bytes.
fn heads(bytes: &[u8], count: i32) -> Result<Vec<RecordHead>, LogError> {
    let mut heads = Vec::new();
    walk(Codec::None, bytes, count, u64::MAX, |_, head| {
        heads.push(head);
        ControlFlow::Continue(())
    })?;
    Ok(heads)
}

type Field = Option<Vec<u8>>;

fn put_field(out: &mut Vec<u8>, field: &Field) {
    put_varlong(out, field.as_ref().map_or(-1, |field| field.len() as i64));
    out.extend_from_slice(field.as_deref().unwrap_or_default());
}

type Headers = Vec<(Vec<u8>, Field)>;

/// Attributes, timestamp and offset deltas, key, value, headers.
fn fields() -> impl Strategy<Value = (u8, i64, i32, Field, Field, Headers)> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..200);
    let field = || prop::option::of(bytes());
    let headers = prop::collection::vec((bytes(), field()), 0..3);
    let time = prop_oneof![0..1000_i64, any::<i64>()];
    (any::<u8>(), time, any::<i32>(), field(), field(), headers)
}

proptest! {
    #[test]
    fn a_record_is_read_and_put_as_it_is(records in prop::collection::vec(fields(), 0..5)) {
        let mut bytes = Vec::new();
        for (attributes, time, offset, key, value, headers) in &records {
            let mut record = vec![*attributes];
            put_varlong(&mut record, *time);
            put_varlong(&mut record, i64::from(*offset));
            put_field(&mut record, key);
            put_field(&mut record, value);
            put_varlong(&mut record, headers.len() as i64);
            for (name, value) in headers {
                put_field(&mut record, &Some(name.clone()));
                put_field(&mut record, value);
            }
            put_varlong(&mut bytes, record.len() as i64);
            bytes.extend_from_slice(&record);
        }
        let count = records.len() as i32;
        let views = views(&bytes, count).unwrap();
        let whole: Vec<u8> = views.iter().flat_map(|view| view.bytes).copied().collect();
        prop_assert_eq!(&whole, &bytes);
        let mut again = Vec::new();
        for (view, (_, time, offset, key, value, _)) in views.iter().zip(&records) {
            prop_assert_eq!((view.timestamp_delta, view.offset_delta), (*time, *offset));
            prop_assert_eq!((view.key, view.has_value), (key.as_deref(), value.is_some()));
            view.put_with_timestamp_delta(*time, &mut again);
            let mut moved = Vec::new();
            view.put_with_timestamp_delta(time.wrapping_neg(), &mut moved);
            let moved = self::views(&moved, 1).unwrap()[0];
            prop_assert_eq!(moved.timestamp_delta, time.wrapping_neg());
            prop_assert_eq!((moved.key, moved.tail), (view.key, view.tail));
        }
        prop_assert_eq!(again, bytes);
    }

    #[test]
    fn any_bytes_are_records_for_both_or_for_neither(
        bytes in prop::collection::vec(prop_oneof![0..12_u8, any::<u8>()], 0..60),
        count in -1..4_i32,
    ) {
        match (views(&bytes, count), heads(&bytes, count)) {
            (Ok(views), Ok(heads)) => {
                let of = |view: RecordView| RecordHead {
                    timestamp_delta: view.timestamp_delta,
                    offset_delta: view.offset_delta,
                    has_key: view.key.is_some(),
                };
                prop_assert_eq!(views.into_iter().map(of).collect::<Vec<_>>(), heads);
            }
            (Err(one), Err(other)) => prop_assert_eq!(one.to_string(), other.to_string()),
            (one, other) => prop_assert!(false, "{one:?} {other:?}"),
        }
    }
}
