//! The safetensors format: eight bytes with the header's length, a JSON header with dtype, shape
//! and offsets of every tensor, then the bytes of the tensors without gaps.
//!
//! The header is parsed here rather than by the `safetensors` crate so that every error names its
//! tensor and a file is the same, byte for byte, every time it is written; tests hold the two
//! against each other.

use std::collections::{BTreeMap, btree_map};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use ferrata_ir::DType;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::Value;

use crate::error::shown;
use crate::tensor::byte_size;
use crate::{Error, MappedFile, Result, TensorView, atomic};

/// The limit that the format sets on the header's length.
const MAX_HEADER: u64 = 100_000_000;
const LENGTH_BYTES: usize = 8;

/// A safetensors file, mapped into memory.
///
/// ```no_run
/// # fn main() -> ferrata_formats::Result<()> {
/// use ferrata_formats::safetensors::TensorFile;
///
/// let file = TensorFile::open("model.safetensors")?;
/// for (name, tensor) in file.iter() {
///     println!("{name} {} {:?}", tensor.dtype, tensor.shape);
/// }
/// let weights = file.get("lm_head.weight")?.to_f32();
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct TensorFile {
    path: PathBuf,
    map: MappedFile,
    header_bytes: usize,
    metadata: BTreeMap<String, String>,
    tensors: BTreeMap<String, Entry>,
}

#[derive(Debug, PartialEq)]
struct Entry {
    dtype: DType,
    shape: Vec<usize>,
    /// Position in the file, header included.
    start: usize,
    end: usize,
}

impl TensorFile {
    /// Maps `path` and checks its header.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be read, [`Error::Damaged`] if it is truncated or not a
    /// safetensors file, [`Error::Tensor`] if an entry of the header is wrong or of a dtype that
    /// Ferrata does not have.
    pub fn open(path: impl AsRef<Path>) -> Result<TensorFile> {
        let path = path.as_ref();
        let map = MappedFile::open(path)?;
        let (header_bytes, header) = parse(path, &map)?;
        let file = TensorFile {
            path: path.to_path_buf(),
            map,
            header_bytes,
            metadata: header.metadata,
            tensors: header.tensors,
        };
        file.check_bools()?;
        Ok(file)
    }

    /// The file's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The free-form metadata of the header.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// The names of all tensors, sorted.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// All tensors, sorted by name.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, TensorView<'_>)> {
        self.tensors.iter().map(|(name, entry)| (name.as_str(), self.view(entry)))
    }

    /// The tensor `name`, if there is one.
    pub fn find(&self, name: &str) -> Option<TensorView<'_>> {
        self.tensors.get(name).map(|entry| self.view(entry))
    }

    /// The tensor `name`.
    ///
    /// # Errors
    /// [`Error::Tensor`] that lists some of the tensors there are.
    pub fn get(&self, name: &str) -> Result<TensorView<'_>> {
        self.find(name).ok_or_else(|| {
            let mut known: Vec<&str> = self.names().take(4).collect();
            if self.tensors.len() > known.len() {
                known.push("…");
            }
            let known = known.join(", ").escape_debug().to_string();
            Error::tensor(&self.path, name, format!("does not exist; the file has: {known}"))
        })
    }

    /// The part of the file before the first tensor: length and header.
    pub fn header(&self) -> &[u8] {
        &self.map[..self.header_bytes]
    }

    fn view<'a>(&'a self, entry: &'a Entry) -> TensorView<'a> {
        TensorView {
            dtype: entry.dtype,
            shape: &entry.shape,
            bytes: &self.map[entry.start..entry.end],
        }
    }

    /// Other code relies on truth values being 0 or 1.
    fn check_bools(&self) -> Result<()> {
        for (name, tensor) in self.iter().filter(|(_, t)| t.dtype == DType::Bool) {
            if let Some(at) = tensor.bytes.iter().position(|&b| b > 1) {
                let byte = tensor.bytes[at];
                let what = format!("holds {byte} at element {at}; a BOOL tensor holds 0 and 1");
                return Err(Error::tensor(&self.path, name, what));
            }
        }
        Ok(())
    }
}

/// The parsed header.
struct Header {
    metadata: BTreeMap<String, String>,
    tensors: BTreeMap<String, Entry>,
}

/// The header's entries as they stand in the file; a name that occurs twice is kept twice.
struct Entries(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Entries;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object with tensor names as keys")
            }

            fn visit_map<A: MapAccess<'de>>(
                self,
                mut map: A,
            ) -> std::result::Result<Entries, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

/// Checks the whole header of a file with the content `bytes`; gives the number of bytes before
/// the first tensor.
fn parse(path: &Path, bytes: &[u8]) -> Result<(usize, Header)> {
    let Some((length, rest)) = bytes.split_first_chunk::<LENGTH_BYTES>() else {
        let what = format!("it has {} bytes, too few for a safetensors file", bytes.len());
        return Err(Error::damaged(path, what));
    };
    let length = u64::from_le_bytes(*length);
    if length > MAX_HEADER {
        let what = format!("a header of {length} bytes is announced; not a safetensors file");
        return Err(Error::damaged(path, what));
    }
    // It fits: the limit is far below the range of usize.
    let length = length as usize;
    let Some(json) = rest.get(..length) else {
        let what = format!("truncated in the header: {} of {length} bytes are there", rest.len());
        return Err(Error::damaged(path, what));
    };
    let entries: Entries = serde_json::from_slice(json)
        .map_err(|e| Error::damaged(path, format!("the header is not valid JSON ({e})")))?;
    let start = LENGTH_BYTES + length;
    let header = read_entries(path, entries, start)?;
    check_layout(path, &header, start, bytes.len())?;
    Ok((start, header))
}

fn read_entries(path: &Path, entries: Entries, start: usize) -> Result<Header> {
    let mut header = Header { metadata: BTreeMap::new(), tensors: BTreeMap::new() };
    for (name, value) in entries.0 {
        if name == "__metadata__" {
            header.metadata = serde_json::from_value(value)
                .map_err(|e| Error::damaged(path, format!("the metadata is wrong ({e})")))?;
            continue;
        }
        let entry = read_entry(&value, start).map_err(|what| Error::tensor(path, &name, what))?;
        match header.tensors.entry(name) {
            btree_map::Entry::Vacant(free) => free.insert(entry),
            btree_map::Entry::Occupied(taken) => {
                let what = "occurs twice; write the file again with distinct names";
                return Err(Error::tensor(path, taken.key(), what));
            }
        };
    }
    Ok(header)
}

fn read_entry(value: &Value, start: usize) -> std::result::Result<Entry, String> {
    let damaged = |key: &str| match value.get(key) {
        None => format!("has no `{key}`; the header is damaged"),
        Some(v) => format!("has the {key} {}; the header is damaged", shown(v)),
    };
    let name = value.get("dtype").and_then(Value::as_str).ok_or_else(|| damaged("dtype"))?;
    let dtype = dtype_named(name).ok_or_else(|| {
        format!(
            "has the dtype {name:?}, which is not supported; convert it to one of F64 F32 F16 \
             BF16 I64 I32 I16 I8 U8 U32 BOOL"
        )
    })?;
    let shape = value.get("shape").and_then(sizes).ok_or_else(|| damaged("shape"))?;
    let offsets = value.get("data_offsets").and_then(sizes);
    let Some(&[from, to]) = offsets.as_deref() else {
        return Err(damaged("data_offsets"));
    };
    let (Some(first), Some(last)) = (start.checked_add(from), start.checked_add(to)) else {
        return Err(damaged("data_offsets"));
    };
    if byte_size(dtype, &shape) != to.checked_sub(from) {
        return Err(format!(
            "has shape {shape:?} and dtype {name}, but its offsets are {from} to {to}; the header \
             is damaged"
        ));
    }
    Ok(Entry { dtype, shape, start: first, end: last })
}

fn sizes(value: &Value) -> Option<Vec<usize>> {
    let sizes = value.as_array()?.iter();
    sizes.map(|v| v.as_u64().and_then(|n| usize::try_from(n).ok())).collect()
}

/// Tensors must follow each other without gap or overlap and end with the file.
fn check_layout(path: &Path, header: &Header, start: usize, file_size: usize) -> Result<()> {
    let mut order: Vec<_> = header.tensors.iter().collect();
    order.sort_by_key(|(_, entry)| (entry.start, entry.end));
    let mut position = start;
    for (name, entry) in order {
        if entry.start != position {
            let what = "overlaps another tensor or leaves a gap; the header is damaged";
            return Err(Error::tensor(path, name, what));
        }
        if entry.end > file_size {
            let what = format!(
                "is cut off: it ends at byte {} and the file has {file_size} bytes; copy or \
                 download it again",
                entry.end
            );
            return Err(Error::tensor(path, name, what));
        }
        position = entry.end;
    }
    if position != file_size {
        let what = format!("{} bytes follow the last tensor", file_size - position);
        return Err(Error::damaged(path, what));
    }
    Ok(())
}

/// The format's name of a dtype.
fn dtype_name(dtype: DType) -> &'static str {
    match dtype {
        DType::F64 => "F64",
        DType::F32 => "F32",
        DType::F16 => "F16",
        DType::BF16 => "BF16",
        DType::I64 => "I64",
        DType::I32 => "I32",
        DType::I16 => "I16",
        DType::I8 => "I8",
        DType::U8 => "U8",
        DType::U32 => "U32",
        DType::Bool => "BOOL",
    }
}

fn dtype_named(name: &str) -> Option<DType> {
    DType::ALL.into_iter().find(|&dtype| dtype_name(dtype) == name)
}

/// Writes tensors as a safetensors file, atomically.
///
/// The tensors are stored with the widest elements first, then by name, so each is aligned to its
/// element size and the same content gives the same bytes. Files for PyTorch and transformers
/// want the metadata `format` = `pt`.
///
/// # Errors
/// [`Error::Tensor`] if a name occurs twice or bytes and shape disagree; [`Error::DiskFull`],
/// [`Error::Io`]. Nothing is left behind, and an existing file is unchanged.
///
/// ```no_run
/// # fn main() -> ferrata_formats::Result<()> {
/// use ferrata_formats::{RawTensor, safetensors};
///
/// let ids = RawTensor::from_i64(&[1, 3], &[5, 17, 3]);
/// safetensors::write("in.safetensors", [("input_ids", ids.view())], &Default::default())?;
/// # Ok(()) }
/// ```
pub fn write<'a, N: Into<String>>(
    path: impl AsRef<Path>,
    tensors: impl IntoIterator<Item = (N, TensorView<'a>)>,
    metadata: &BTreeMap<String, String>,
) -> Result<()> {
    let path = path.as_ref();
    let layout = Layout::new(path, tensors, metadata)?;
    atomic::write_file(path, layout.file_size(), |out| layout.write(out))
}

/// What a file will hold, in order.
pub(crate) struct Layout<'a> {
    /// Length and JSON, as they stand at the start of the file.
    pub(crate) header: Vec<u8>,
    /// Names and tensors in the order of the file.
    pub(crate) tensors: Vec<(String, TensorView<'a>)>,
}

impl<'a> Layout<'a> {
    /// `path` is for messages only.
    pub(crate) fn new<N: Into<String>>(
        path: &Path,
        tensors: impl IntoIterator<Item = (N, TensorView<'a>)>,
        metadata: &BTreeMap<String, String>,
    ) -> Result<Layout<'a>> {
        let mut tensors: Vec<(String, TensorView<'a>)> =
            tensors.into_iter().map(|(name, tensor)| (name.into(), tensor)).collect();
        tensors.sort_by(|(a, s), (b, t)| t.dtype.size().cmp(&s.dtype.size()).then(a.cmp(b)));
        check_tensors(path, &tensors)?;
        let header = header_bytes(&tensors, metadata);
        Ok(Layout { header, tensors })
    }

    pub(crate) fn file_size(&self) -> u64 {
        let tensors: u64 = self.tensors.iter().map(|(_, t)| t.bytes.len() as u64).sum();
        self.header.len() as u64 + tensors
    }

    pub(crate) fn write(&self, out: &mut dyn std::io::Write) -> std::io::Result<()> {
        out.write_all(&self.header)?;
        self.tensors.iter().try_for_each(|(_, tensor)| out.write_all(tensor.bytes))
    }
}

fn check_tensors(path: &Path, tensors: &[(String, TensorView<'_>)]) -> Result<()> {
    let mut names: Vec<&str> = tensors.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        let what = "is to be written twice; give every tensor its own name";
        return Err(Error::tensor(path, pair[0], what));
    }
    if names.contains(&"__metadata__") {
        let what = "has a name that the format reserves; rename it";
        return Err(Error::tensor(path, "__metadata__", what));
    }
    for (name, tensor) in tensors {
        if byte_size(tensor.dtype, tensor.shape) != Some(tensor.bytes.len()) {
            let what = format!(
                "cannot be written: {} bytes do not fit {} of shape {:?}",
                tensor.bytes.len(),
                tensor.dtype,
                tensor.shape
            );
            return Err(Error::tensor(path, name, what));
        }
    }
    Ok(())
}

fn header_bytes(
    tensors: &[(String, TensorView<'_>)],
    metadata: &BTreeMap<String, String>,
) -> Vec<u8> {
    let quoted = |text: &str| Value::from(text).to_string();
    let mut json = String::from("{");
    let mut separator = "";
    if !metadata.is_empty() {
        let pairs: Vec<String> =
            metadata.iter().map(|(k, v)| format!("{}:{}", quoted(k), quoted(v))).collect();
        let _ = write!(json, "\"__metadata__\":{{{}}}", pairs.join(","));
        separator = ",";
    }
    let mut offset = 0;
    for (name, tensor) in tensors {
        let end = offset + tensor.bytes.len();
        let shape: Vec<String> = tensor.shape.iter().map(usize::to_string).collect();
        // Writing to a string cannot fail.
        let _ = write!(
            json,
            "{separator}{}:{{\"dtype\":\"{}\",\"shape\":[{}],\"data_offsets\":[{offset},{end}]}}",
            quoted(name),
            dtype_name(tensor.dtype),
            shape.join(","),
        );
        (offset, separator) = (end, ",");
    }
    json.push('}');
    // Spaces up to a multiple of eight keep the first tensor aligned.
    let length = json.len().next_multiple_of(LENGTH_BYTES);
    let mut bytes = (length as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(json.as_bytes());
    bytes.resize(LENGTH_BYTES + length, b' ');
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RawTensor;
    use crate::tensor::tests::scratch;
    use std::fs;

    fn samples() -> Vec<(String, RawTensor)> {
        let mut tensors: Vec<(String, RawTensor)> = DType::ALL
            .into_iter()
            .enumerate()
            .map(|(i, dtype)| {
                let bytes = (0..6 * dtype.size()).map(|b| ((b * 7 + i) % 2) as u8).collect();
                (format!("{dtype}.weight"), RawTensor { dtype, shape: vec![2, 3], bytes })
            })
            .collect();
        tensors.push(("scalar".into(), RawTensor::from_f32(&[], &[2.5])));
        tensors.push(("empty \"quoted\"\n".into(), RawTensor::from_f32(&[0, 4], &[])));
        tensors
    }

    fn views(tensors: &[(String, RawTensor)]) -> impl Iterator<Item = (&str, TensorView<'_>)> {
        tensors.iter().map(|(name, t)| (name.as_str(), t.view()))
    }

    fn metadata() -> BTreeMap<String, String> {
        [("format", "pt"), ("note", "a \"b\""), ("a", "z")]
            .into_iter()
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .collect()
    }

    #[test]
    fn every_dtype_survives_and_the_reference_crate_agrees() {
        let folder = scratch("safetensors_round_trip");
        let path = folder.join("a.safetensors");
        let tensors = samples();
        write(&path, views(&tensors), &metadata()).unwrap();
        let file = TensorFile::open(&path).unwrap();
        assert_eq!(file.metadata(), &metadata());
        assert_eq!(file.names().len(), tensors.len());
        let bytes = fs::read(&path).unwrap();
        let reference = ::safetensors::SafeTensors::deserialize(&bytes).unwrap();
        for (name, tensor) in &tensors {
            assert_eq!(&file.get(name).unwrap().to_owned(), tensor);
            let other = reference.tensor(name).unwrap();
            assert_eq!(other.shape(), tensor.shape);
            assert_eq!(other.data(), tensor.bytes);
            let start = other.data().as_ptr() as usize - bytes.as_ptr() as usize;
            assert_eq!(start % tensor.dtype.size(), 0, "{name} is not aligned");
        }
        let again = folder.join("b.safetensors");
        write(&again, views(&tensors).collect::<Vec<_>>().into_iter().rev(), &metadata()).unwrap();
        assert_eq!(fs::read(&again).unwrap(), bytes, "the order given does not matter");
    }

    #[test]
    fn reads_what_the_reference_crate_writes() {
        use ::safetensors::tensor::{Dtype, TensorView as Other, serialize};
        let data: Vec<u8> = (0..24).collect();
        let weight = Other::new(Dtype::F32, vec![2, 3], &data).unwrap();
        let ids = Other::new(Dtype::I16, vec![12], &data).unwrap();
        let bytes = serialize([("w", weight), ("ids", ids)], None).unwrap();
        let path = scratch("safetensors_reference").join("a.safetensors");
        fs::write(&path, bytes).unwrap();
        let file = TensorFile::open(&path).unwrap();
        assert_eq!(file.names().collect::<Vec<_>>(), ["ids", "w"]);
        assert_eq!(file.get("w").unwrap().bytes, data);
        assert_eq!(file.get("ids").unwrap().dtype, DType::I16);
    }

    fn error_of(json: &str, data: &[u8]) -> String {
        let mut bytes = (json.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(json.as_bytes());
        bytes.extend_from_slice(data);
        let error = parse(Path::new("x.safetensors"), &bytes).err().unwrap().to_string();
        assert!(error.contains("x.safetensors") && !error.contains('\n'), "{error}");
        error
    }

    #[test]
    fn errors_name_the_tensor_and_the_cause() {
        let entry = |dtype: &str, shape: &str, offsets: &str| {
            format!(r#"{{"w.x":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}}}"#)
        };
        for (json, data, expected) in [
            (entry("F8_E4M3", "[4]", "[0,4]"), 4, "dtype \"F8_E4M3\""),
            (entry("F32", "[4]", "[0,8]"), 8, "shape [4]"),
            (entry("F32", "[-4]", "[0,16]"), 16, "the shape [-4]"),
            (entry("F32", "[4294967296,4294967296,16]", "[0,0]"), 0, "the header is damaged"),
            (entry("F32", "[4]", "[0,16,3]"), 16, "data_offsets"),
            (entry("F32", "[4]", "[18446744073709551615,16]"), 16, "data_offsets"),
            (entry("F32", "[4]", "[4,20]"), 20, "leaves a gap"),
            (entry("F32", "[4]", "[0,16]"), 9, "is cut off"),
        ] {
            let error = error_of(&json, &vec![0; data]);
            assert!(error.contains("\"w.x\"") && error.contains(expected), "{error}");
        }
        assert!(error_of("{}", &[0; 3]).contains("3 bytes follow"));
        assert!(error_of("[]", &[]).contains("not valid JSON"));
        assert!(error_of("{\"a\":", &[]).contains("not valid JSON"));
        assert!(error_of(r#"{"a":5}"#, &[]).contains("no `dtype`"));
        let one = r#""a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}"#;
        assert!(error_of(&format!("{{{one},{one}}}"), &[0]).contains("occurs twice"));
        assert!(error_of(r#"{"__metadata__":{"a":1}}"#, &[]).contains("metadata"));
    }

    #[test]
    fn short_and_foreign_files_are_refused() {
        let folder = scratch("safetensors_short");
        let path = folder.join("a.safetensors");
        for content in [&b""[..], b"short", b"#!/bin/sh echo hello and some more text"] {
            fs::write(&path, content).unwrap();
            let error = TensorFile::open(&path).unwrap_err().to_string();
            assert!(error.contains("a.safetensors") && error.contains("damaged"), "{error}");
        }
        assert!(TensorFile::open(&folder).unwrap_err().to_string().contains("not a folder"));
        let missing = TensorFile::open(folder.join("b")).unwrap_err().to_string();
        assert!(missing.contains("check the path"), "{missing}");
    }

    #[test]
    fn every_truncation_is_an_error() {
        let folder = scratch("safetensors_truncated");
        let path = folder.join("a.safetensors");
        let tensors = samples();
        write(&path, views(&tensors), &metadata()).unwrap();
        let bytes = fs::read(&path).unwrap();
        for length in 0..bytes.len() {
            assert!(parse(&path, &bytes[..length]).is_err(), "{length}");
        }
    }

    #[test]
    fn bool_tensors_hold_truth_values() {
        let path = scratch("safetensors_bool").join("a.safetensors");
        let tensor = RawTensor { dtype: DType::Bool, shape: vec![3], bytes: vec![0, 1, 7] };
        write(&path, [("mask", tensor.view())], &BTreeMap::new()).unwrap();
        let error = TensorFile::open(&path).unwrap_err().to_string();
        assert!(error.contains("\"mask\"") && error.contains("7 at element 2"), "{error}");
    }

    #[test]
    fn bad_writes_leave_nothing() {
        let folder = scratch("safetensors_bad_write");
        let path = folder.join("a.safetensors");
        let good = RawTensor::from_f32(&[1], &[1.0]);
        let bad = TensorView { shape: &[2], ..good.view() };
        let twice = [("a", good.view()), ("a", good.view())];
        assert!(write(&path, twice, &BTreeMap::new()).is_err());
        let error = write(&path, [("b", bad)], &BTreeMap::new()).unwrap_err().to_string();
        assert!(error.contains("4 bytes do not fit f32 of shape [2]"), "{error}");
        assert!(write(&path, [("__metadata__", good.view())], &BTreeMap::new()).is_err());
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
    }

    #[test]
    fn a_missing_tensor_is_named_with_what_there_is() {
        let path = scratch("safetensors_missing").join("a.safetensors");
        let tensor = RawTensor::from_f32(&[1], &[1.0]);
        write(&path, [("a", tensor.view())], &BTreeMap::new()).unwrap();
        let error = TensorFile::open(&path).unwrap().get("b").unwrap_err().to_string();
        assert!(error.contains("\"b\"") && error.contains("the file has: a"), "{error}");
    }
}
