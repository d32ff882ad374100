//! Headers, indexes and the writer of the safetensors format.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs;

use ::safetensors::SafeTensors;
use arbtest::arbitrary::Unstructured;
use mlxk_core::tensors::{self, Dtype, Entry, Header, Index};

/// A file with the header `header` and `data` bytes of zeros after it.
fn file(header: &str, data: usize) -> Vec<u8> {
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    file.extend(vec![0; data]);
    file
}

fn parse(index: &[u8]) -> Result<Index, String> {
    Index::parse(index)
}

fn read(file: &[u8]) -> Result<Header, String> {
    Header::read(&mut &*file, file.len() as u64)
}

#[test]
fn a_header_says_where_each_tensor_lies() {
    let text = r#"{"__metadata__":{"format":"mlx"},
        "b":{"dtype":"U32","shape":[2,1],"data_offsets":[4,12]},
        "a":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]},
        "e":{"dtype":"F8_E4M3","shape":[0,7],"data_offsets":[12,12]},
        "s":{"dtype":"F8_E8M0","shape":[],"data_offsets":[12,13]},
        "f":{"dtype":"F4","shape":[2],"data_offsets":[13,14]}}"#;
    let header = read(&file(text, 14)).unwrap();
    let start = 8 + text.len() as u64;
    let names: Vec<_> = header.tensors.iter().map(|tensor| tensor.name.as_str()).collect();
    assert_eq!(names, ["a", "b", "e", "s", "f"]);
    assert_eq!(header.tensors[1].range, start + 4..start + 12);
    assert_eq!(
        (header.tensors[1].dtype, header.tensors[1].shape.as_slice()),
        (Dtype::U32, &[2, 1][..])
    );
    assert_eq!(header.metadata["format"], "mlx");
}

#[test]
fn a_bad_header_is_refused_with_the_tensor_and_the_numbers() {
    let one = |entry: &str| format!(r#"{{"w":{entry}}}"#);
    let f32 = |shape: &str, offsets: &str| {
        one(&format!(r#"{{"dtype":"F32","shape":{shape},"data_offsets":{offsets}}}"#))
    };
    let two = |first: &str, second: &str| {
        let entry = |offsets| format!(r#"{{"dtype":"U8","shape":[4],"data_offsets":{offsets}}}"#);
        format!(r#"{{"v":{},"w":{}}}"#, entry(first), entry(second))
    };
    let cases: &[(String, usize, &str)] = &[
        (f32("[2]", "[0,8]"), 4, "truncated: the tensors end at byte"),
        (f32("[2]", "[0,8]"), 9, "1 bytes that belong to no tensor at the end"),
        (f32("[2]", "[0,4]"), 4, r#"tensor "w" (F32 [2]) needs 8 bytes but has offsets 0 to 4"#),
        (f32("[2]", "[8,0]"), 8, r#"needs 8 bytes but has offsets 8 to 0"#),
        (f32("[4294967296,4294967296]", "[0,8]"), 8, r#"tensor "w" has an impossible size"#),
        (f32("[2]", "[18446744073709551607,18446744073709551615]"), 8, "beyond any file"),
        (f32("[-1]", "[0,8]"), 8, r#"invalid header: "w": invalid value: integer `-1`"#),
        (f32("[2.0]", "[0,8]"), 8, r#"invalid header: "w": invalid type: floating point"#),
        (f32("[2]", "[4,12]"), 12, r#"tensor "w" leaves a gap: it starts at 4, not 0"#),
        (two("[0,4]", "[3,7]"), 7, r#"tensor "w" overlaps the one before: it starts at 3, not 4"#),
        (two("[0,4]", "[0,4]"), 8, r#"tensor "w" overlaps the one before"#),
        (two("[0,4]", "[4,8]").replace('v', "w"), 8, r#"tensor "w" is there twice"#),
        (
            f32("[2]", "[0,8]").replace("F32", "Q4_K"),
            8,
            r#"tensor "w" has the unknown dtype "Q4_K""#,
        ),
        (f32("[3]", "[0,1]").replace("F32", "F4"), 1, r#"impossible size: F4 [3]"#),
        (r#"{"__metadata__":[]}"#.to_owned(), 0, r#"invalid header: "__metadata__""#),
        ("[]".to_owned(), 0, "invalid header"),
        (r#"{"w":"#.to_owned(), 0, r#"invalid header: "w": EOF"#),
    ];
    for (text, data, reason) in cases {
        let error = read(&file(text, *data)).unwrap_err();
        assert!(error.contains(reason), "{text}\n  gave {error}\n  not  {reason}");
    }
}

#[test]
fn a_lying_length_is_refused_without_allocating_it() {
    let with_length = |length: u64| [&length.to_le_bytes()[..], b"{}"].concat();
    let cases = [
        (vec![], "no safetensors header: the file has 0 bytes"),
        (vec![1, 2, 3], "no safetensors header: the file has 3 bytes"),
        (with_length(10_000_000_000), "header of 10000000000 bytes is over the limit of 100000000"),
        (with_length(u64::MAX), "header of 18446744073709551615 bytes is over the limit"),
        (with_length(99_999_999), "truncated: header of 99999999 bytes in a file of 10"),
        (with_length(3), "truncated: header of 3 bytes in a file of 10"),
    ];
    for (file, reason) in cases {
        let error = read(&file).unwrap_err();
        assert!(error.contains(reason), "{error}");
    }
}

#[test]
fn the_reference_reader_accepts_the_same_files_and_reads_them_alike() {
    let mut accepted = 0;
    arbtest::arbtest(|u| {
        let bytes = match u.int_in_range(0..=3)? {
            0 => u.arbitrary()?,
            1 => mutated(u)?,
            _ => plausible(u)?,
        };
        let (ours, theirs) = (read(&bytes), SafeTensors::read_metadata(&bytes));
        let (ours, (length, theirs)) = match (ours, theirs) {
            (Ok(ours), theirs) => (ours, theirs.expect("the reference accepts it too")),
            (Err(reason), theirs) => {
                assert!(theirs.is_err(), "only we refuse it: {reason}");
                return Ok(());
            }
        };
        accepted += 1;
        assert_eq!(ours.tensors.len(), theirs.tensors().len());
        for tensor in &ours.tensors {
            let info = theirs.info(&tensor.name).unwrap();
            let (from, to) = info.data_offsets;
            let start = 8 + length;
            assert_eq!(tensor.range, (start + from) as u64..(start + to) as u64);
            assert_eq!((tensor.dtype, &tensor.shape), (info.dtype, &info.shape));
        }
        Ok(())
    })
    .budget_ms(500);
    assert!(accepted > 20, "only {accepted} files were worth reading");
}

type Drawn<T> = arbtest::arbitrary::Result<T>;

/// A file of a few tensors in which one number in ten is slightly wrong. All names differ, since the
/// reference drops one of two tensors with the same name.
fn plausible(u: &mut Unstructured) -> Drawn<Vec<u8>> {
    let off = |number: u64, u: &mut Unstructured| -> Drawn<u64> {
        match u.ratio(1, 10)? {
            true => Ok(number.saturating_add_signed(u.int_in_range(-2..=2)?)),
            false => Ok(number),
        }
    };
    let (mut entries, mut end) = (Vec::new(), 0);
    for number in 0..u.int_in_range(0..=3)? {
        let (dtype, bits) = *u.choose(&[("U8", 8), ("F16", 16), ("F4", 4), ("F6_E2M3", 6)])?;
        let shape: [u64; 2] = [u.int_in_range(0..=4)?, u.int_in_range(0..=2)?];
        let (from, to) = (off(end, u)?, off(end + shape[0] * shape[1] * bits / 8, u)?);
        entries.push(format!(
            r#""t{number}":{{"dtype":"{dtype}","shape":{shape:?},"data_offsets":[{from},{to}]}}"#
        ));
        end = to;
    }
    if u.ratio(1, 2)? {
        entries.reverse();
    }
    Ok(file(&format!("{{{}}}", entries.join(",")), off(end, u)? as usize))
}

/// A valid file with some bytes changed.
fn mutated(u: &mut Unstructured) -> Drawn<Vec<u8>> {
    let text = r#"{"__metadata__":{"format":"mlx"},"alpha":{"dtype":"F16","shape":[2,3],"data_offsets":[0,12]},"omega":{"dtype":"U8","shape":[4],"data_offsets":[12,16]}}"#;
    let mut bytes = file(text, 16);
    for _ in 0..u.int_in_range(0..=3)? {
        let at = u.int_in_range(0..=bytes.len() - 1)?;
        match u.int_in_range(0..=2)? {
            0 => bytes[at] = u.arbitrary()?,
            1 => bytes.truncate(at + 1),
            _ => bytes.insert(at, u.arbitrary()?),
        }
    }
    Ok(bytes)
}

#[test]
fn an_index_names_only_files_inside_the_model() {
    let index = |file: &str| {
        let map = serde_json::json!({ "weight_map": { "w": file } });
        parse(map.to_string().as_bytes())
    };
    assert_eq!(index("model-00001-of-00002.safetensors").unwrap().files().count(), 1);
    assert!(index("text/model.safetensors").is_ok());
    for outside in ["../x", "a/../../x", "/etc/hostname", "", ".", "..\\x", "C:/x", "x\0y"] {
        let error = index(outside).unwrap_err();
        assert!(error.starts_with("Index points outside the model: w is in"), "{outside}: {error}");
    }
}

#[test]
fn an_index_that_is_none_says_so() {
    for (text, reason) in [
        ("{", "Invalid index file: contains invalid JSON: EOF"),
        ("[]", "Invalid index file: is empty or invalid: a list"),
        ("{}", "Empty or invalid weight_map in index"),
        (r#"{"weight_map":{}}"#, "Empty or invalid weight_map in index"),
        (r#"{"weight_map":["a"]}"#, "Empty or invalid weight_map in index"),
        (r#"{"weight_map":{"a":1}}"#, "Empty or invalid weight_map in index"),
    ] {
        let error = parse(text.as_bytes()).unwrap_err();
        assert!(error.contains(reason), "{text}: {error}");
    }
    arbtest::arbtest(|u| {
        let bytes: Vec<u8> = u.arbitrary()?;
        let _ = parse(&bytes);
        Ok(())
    });
}

#[test]
fn an_index_and_the_headers_must_agree() {
    let header = |names: &[&str]| {
        let entry =
            |name: &&str| format!(r#""{name}":{{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}"#);
        let entries: Vec<_> = names.iter().map(entry).collect();
        read(&file(&format!("{{{}}}", entries.join(",")), 0)).unwrap()
    };
    let index = parse(br#"{"weight_map":{"a":"1","b":"1","c":"2"}}"#).unwrap();
    let check = |one: &[&str], two: &[&str]| {
        let (one, two) = (header(one), header(two));
        index.check(&BTreeMap::from([("1", &one), ("2", &two)]))
    };
    assert_eq!(check(&["a", "b"], &["c"]), Ok(()));
    assert_eq!(check(&["a"], &["c"]).unwrap_err(), r#"tensor "b" is not in 1"#);
    assert_eq!(check(&["a"], &["b", "c"]).unwrap_err(), r#"tensor "b" is in 2, not in 1"#);
    assert_eq!(check(&["a", "b"], &["b", "c"]).unwrap_err(), r#"tensor "b" is in both 1 and 2"#);
    assert_eq!(
        check(&["a", "b", "d"], &["c"]).unwrap_err(),
        r#"tensor "d" of 1 is not in the index"#
    );
}

fn entries() -> Vec<Entry> {
    let entry = |name: &str, dtype, shape: &[usize]| Entry {
        name: name.into(),
        dtype,
        shape: shape.into(),
    };
    vec![
        entry("norm", Dtype::F16, &[3]),
        entry("packed", Dtype::U32, &[2, 2]),
        entry("scales", Dtype::F32, &[2]),
    ]
}

/// Data that distinguishes the tensors: their first letter.
fn content(entry: &Entry) -> Vec<u8> {
    let elements: usize = entry.shape.iter().product();
    vec![entry.name.as_bytes()[0]; elements * entry.dtype.bitsize() / 8]
}

#[test]
fn what_is_written_can_be_read_in_one_file_or_in_shards() {
    for (limit, files) in [
        (tensors::SHARD, vec!["model.safetensors"]),
        (24, vec!["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]),
        (
            1,
            (1..=3)
                .map(|n| {
                    [
                        "",
                        "model-00001-of-00003.safetensors",
                        "model-00002-of-00003.safetensors",
                        "model-00003-of-00003.safetensors",
                    ][n]
                })
                .collect(),
        ),
    ] {
        let dir = tempfile::tempdir().unwrap();
        tensors::write(dir.path(), &entries(), limit, |entry| Ok(Cow::Owned(content(entry))))
            .unwrap();
        let text = fs::read(dir.path().join("model.safetensors.index.json")).unwrap();
        let index = parse(&text).unwrap();
        assert_eq!(index.files().collect::<Vec<_>>(), files);
        let fields: serde_json::Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(fields["metadata"]["total_size"], 6 + 16 + 8);
        assert_eq!(
            index.weight_map().map(|(name, _)| name).collect::<Vec<_>>(),
            ["norm", "packed", "scales"]
        );
        let mut headers = BTreeMap::new();
        for file in files {
            let bytes = fs::read(dir.path().join(file)).unwrap();
            let header = read(&bytes).unwrap();
            assert_eq!(header.metadata["format"], "mlx");
            for tensor in &header.tensors {
                let range = tensor.range.start as usize..tensor.range.end as usize;
                assert_eq!(
                    range.start * 8 % tensor.dtype.bitsize(),
                    0,
                    "{} is aligned",
                    tensor.name
                );
                assert!(bytes[range].iter().all(|byte| *byte == tensor.name.as_bytes()[0]));
            }
            headers.insert(file, header);
        }
        let headers = headers.iter().map(|(file, header)| (*file, header)).collect();
        assert_eq!(index.check(&headers), Ok(()));
        let left = fs::read_dir(dir.path()).unwrap().count();
        assert_eq!(left, index.files().count() + 1, "no temporary file is left");
    }
}

#[test]
fn a_failed_write_leaves_nothing_that_looks_whole() {
    let dir = tempfile::tempdir().unwrap();
    let short = |entry: &Entry| Ok(Cow::Owned(content(entry)[1..].to_vec()));
    let error = tensors::write(dir.path(), &entries(), tensors::SHARD, short).unwrap_err();
    assert_eq!(error.to_string(), "packed: U32 [2, 2] needs 16 bytes, not 15");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    let twice = [entries(), entries()].concat();
    let error = tensors::write(dir.path(), &twice, tensors::SHARD, |_| unreachable!()).unwrap_err();
    assert_eq!(error.to_string(), "norm: a tensor of this name is there twice");
}

#[test]
fn a_written_file_has_the_permissions_of_any_new_file() {
    let dir = tempfile::tempdir().unwrap();
    tensors::write(dir.path(), &entries(), tensors::SHARD, |entry| Ok(Cow::Owned(content(entry))))
        .unwrap();
    let plain = dir.path().join("plain");
    fs::write(&plain, "").unwrap();
    let mode = |path| fs::metadata(path).unwrap().permissions();
    assert_eq!(mode(dir.path().join("model.safetensors")), mode(plain));
}
