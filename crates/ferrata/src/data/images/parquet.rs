//! Parquet files with the bytes of picture files, as Hugging Face publishes them: a column `image`
//! with `bytes` and `path`, and a column `label` or `text`.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::{Field, Row};
use serde_json::Value;

use super::open::{Found, number};
use super::{Example, ImageSet, Picture, Pictures};
use crate::data::error::one_line;
use crate::data::{Error, Result};

/// The files of pictures, all in memory as they are, decoded one by one.
#[derive(Default)]
struct Encoded {
    files: Vec<Vec<u8>>,
    /// The number of the first picture of each Parquet file, and its path.
    parts: Vec<(usize, PathBuf)>,
}

impl Pictures for Encoded {
    fn len(&self) -> usize {
        self.files.len()
    }

    fn key(&self, index: usize) -> String {
        blake3::hash(&self.files[index]).to_hex().to_string()
    }

    fn name(&self, index: usize) -> String {
        let part = self.parts.iter().rev().find(|(first, _)| *first <= index);
        let Some((first, path)) = part else { return format!("picture {index}") };
        format!("row {} of {}", index - first, path.display())
    }

    fn load(&self, index: usize, max_pixels: u64) -> std::result::Result<Picture, String> {
        Picture::decode(&self.files[index], max_pixels)
    }
}

/// The columns of pictures, of classes and of captions.
const IMAGES: [&str; 2] = ["image", "img"];
const LABELS: [&str; 3] = ["label", "labels", "fine_label"];
const CAPTIONS: [&str; 4] = ["text", "caption", "captions", "prompt"];

/// What has been read so far.
#[derive(Default)]
struct Rows {
    pictures: Encoded,
    labels: Vec<u32>,
    captions: Vec<Vec<String>>,
    classes: Vec<String>,
}

/// Opens the file, or the files in the folder or its `data`, if there are any.
pub(super) fn open(path: &Path, entries: &[String]) -> Result<Option<Found>> {
    let parquet = |folder: &Path, names: &[String]| -> Vec<PathBuf> {
        names.iter().filter(|name| name.ends_with(".parquet")).map(|n| folder.join(n)).collect()
    };
    let mut files = match path.is_file() {
        true => vec![path.to_path_buf()],
        false => parquet(path, entries),
    };
    let inner = path.join("data");
    if files.is_empty() && inner.is_dir() {
        files = parquet(&inner, &super::open::list(&inner)?);
    }
    if files.is_empty() {
        return Ok(None);
    }
    // The rest is to learn from.
    let is_validation = |file: &PathBuf| {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        ["val", "test"].iter().any(|part| name.starts_with(part))
    };
    let (check, learn): (Vec<PathBuf>, Vec<PathBuf>) = files.into_iter().partition(is_validation);
    // A part for validation, if there is one, else the test.
    let validation = |file: &&PathBuf| {
        file.file_name().is_some_and(|name| name.to_string_lossy().starts_with("val"))
    };
    let chosen: Vec<&PathBuf> = match check.iter().any(|file| validation(&file)) {
        true => check.iter().filter(validation).collect(),
        false => check.iter().collect(),
    };
    let mut rows = Rows::default();
    learn.iter().try_for_each(|file| rows.read(file))?;
    let train = rows.labels.len();
    chosen.into_iter().try_for_each(|file| rows.read(file))?;
    rows.found(path, train).map(Some)
}

fn wrong(path: &Path, what: impl AsRef<str>) -> Error {
    let what = one_line(what.as_ref());
    Error::Dataset(format!("`{}` {what}; give a Parquet file of images", path.display()))
}

impl Rows {
    fn read(&mut self, path: &Path) -> Result<()> {
        let file = File::open(path).map_err(|error| Error::io("open", path, error))?;
        let damaged = |error| wrong(path, format!("cannot be read ({error})"));
        let reader = SerializedFileReader::new(file).map_err(damaged)?;
        self.pictures.parts.push((self.pictures.files.len(), path.to_path_buf()));
        if self.classes.is_empty() {
            self.classes = class_names(&reader);
        }
        for (index, row) in reader.get_row_iter(None).map_err(damaged)?.enumerate() {
            let row = row.map_err(damaged)?;
            let bytes = column(&row, &IMAGES).and_then(picture_bytes).ok_or_else(|| {
                wrong(path, format!("has no column `image` with bytes (row {index})"))
            })?;
            self.pictures.files.push(bytes);
            let label = column(&row, &LABELS).map(|label| {
                integer(label)
                    .ok_or_else(|| wrong(path, format!("has a wrong label (row {index})")))
            });
            let captions = column(&row, &CAPTIONS).map(texts).unwrap_or_default();
            if label.is_none() && captions.is_empty() {
                return Err(wrong(path, "has neither a column `label` nor `text`"));
            }
            self.labels.push(label.transpose()?.unwrap_or_default());
            self.captions.push(captions);
        }
        Ok(())
    }

    fn found(mut self, path: &Path, train: usize) -> Result<Found> {
        if train == 0 {
            return Err(wrong(path, "holds nothing to learn from"));
        }
        let captioned = self.captions.iter().all(|captions| !captions.is_empty());
        if captioned {
            self.classes.clear();
            self.labels.iter_mut().for_each(|label| *label = 0);
        } else {
            self.captions.clear();
            let count = self.labels.iter().max().map_or(0, |last| *last as usize + 1);
            let named = self.classes.len();
            self.classes.extend((named..count).map(|class| class.to_string()));
        }
        let example =
            |(i, label): (usize, &u32)| Ok(Example { picture: number(i)?, label: *label });
        let mut learn: Vec<Example> =
            self.labels.iter().enumerate().map(example).collect::<Result<_>>()?;
        let check = learn.split_off(train);
        let train = ImageSet {
            pictures: Arc::new(self.pictures),
            examples: learn.into(),
            classes: self.classes.into(),
            captions: self.captions.into(),
        };
        let validation = (!check.is_empty()).then(|| train.with(check));
        Ok(Found { train, validation, notes: Vec::new() })
    }
}

/// The first of the columns that a row has.
fn column<'a>(row: &'a Row, names: &[&str]) -> Option<&'a Field> {
    let named = |name: &&str| row.get_column_iter().find(|(own, _)| own.as_str() == *name);
    names.iter().find_map(named).map(|(_, field)| field)
}

/// The bytes themselves, or those in a group.
fn picture_bytes(field: &Field) -> Option<Vec<u8>> {
    match field {
        Field::Bytes(bytes) => Some(bytes.data().to_vec()),
        Field::Group(row) => column(row, &["bytes"]).and_then(picture_bytes),
        _ => None,
    }
}

fn integer(field: &Field) -> Option<u32> {
    match *field {
        Field::Byte(x) => u32::try_from(x).ok(),
        Field::Short(x) => u32::try_from(x).ok(),
        Field::Int(x) => u32::try_from(x).ok(),
        Field::Long(x) => u32::try_from(x).ok(),
        Field::UByte(x) => Some(x.into()),
        Field::UShort(x) => Some(x.into()),
        Field::UInt(x) => Some(x),
        Field::ULong(x) => u32::try_from(x).ok(),
        _ => None,
    }
    // More classes than anyone has; a wrong number must not make a list of them.
    .filter(|label| *label < 1 << 20)
}

fn texts(field: &Field) -> Vec<String> {
    match field {
        Field::Str(text) => vec![text.clone()],
        Field::ListInternal(list) => list.elements().iter().flat_map(texts).collect(),
        _ => Vec::new(),
    }
}

/// The names of the classes that Hugging Face writes into the metadata.
fn class_names(reader: &SerializedFileReader<File>) -> Vec<String> {
    let metadata = reader.metadata().file_metadata().key_value_metadata();
    let entries = metadata.into_iter().flatten();
    let text = entries.filter(|entry| entry.key == "huggingface").find_map(|e| e.value.as_deref());
    let value: Value = text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    let features = &value["info"]["features"];
    let names = LABELS.iter().find_map(|label| features[label]["names"].as_array());
    let names = names.into_iter().flatten();
    names.filter_map(|name| name.as_str().map(str::to_owned)).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use parquet::basic::Compression;
    use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
    use parquet::file::metadata::KeyValue;
    use parquet::file::properties::WriterProperties;
    use parquet::file::writer::SerializedFileWriter;
    use parquet::schema::parser::parse_message_type;

    use super::*;
    use crate::data::images::{ImageData, ImageSplit};
    use crate::data::testing::scratch;

    const NAMES: &str = r#"{"info": {"features": {"label": {"names": ["cat", "dog"]}}}}"#;

    /// Pictures of one colour each, with labels or captions.
    fn write(file: &Path, reds: &[u8], labels: Option<&[i64]>, captions: Option<&[&str]>) {
        let mut schema =
            "message schema { optional group image { optional binary bytes; optional binary path \
             (UTF8); }"
                .to_owned();
        schema += if labels.is_some() { " optional int64 label;" } else { "" };
        schema += if captions.is_some() { " optional binary text (UTF8);" } else { "" };
        let schema = Arc::new(parse_message_type(&format!("{schema} }}")).unwrap());
        let names = KeyValue::new("huggingface".to_owned(), NAMES.to_owned());
        let properties = WriterProperties::builder()
            .set_compression(Compression::SNAPPY)
            .set_key_value_metadata(Some(vec![names]));
        let file = File::create(file).unwrap();
        let mut writer =
            SerializedFileWriter::new(file, schema, Arc::new(properties.build())).unwrap();
        let mut group = writer.next_row_group().unwrap();
        let png = |red: &u8| Picture::filled(3, 2, [*red, 0, 0]).to_png().unwrap();
        let mut texts = |values: Vec<ByteArray>, depth: i16| {
            let mut column = group.next_column().unwrap().unwrap();
            let depths = vec![depth; values.len()];
            column.typed::<ByteArrayType>().write_batch(&values, Some(&depths), None).unwrap();
            column.close().unwrap();
        };
        texts(reds.iter().map(|red| png(red).into()).collect(), 2);
        texts(reds.iter().map(|_| "a.png".into()).collect(), 2);
        if let Some(captions) = captions {
            texts(captions.iter().map(|text| (*text).into()).collect(), 1);
        }
        if let Some(labels) = labels {
            let mut column = group.next_column().unwrap().unwrap();
            let depths = vec![1; labels.len()];
            column.typed::<Int64Type>().write_batch(labels, Some(&depths), None).unwrap();
            column.close().unwrap();
        }
        group.close().unwrap();
        writer.close().unwrap();
    }

    const ALL: ImageSplit = ImageSplit { validation: 0.0, seed: 0 };

    #[test]
    fn rows_are_pictures_with_classes() {
        let folder = scratch("images_parquet");
        fs::create_dir(folder.join("data")).unwrap();
        let part = |name: &str| folder.join("data").join(name);
        write(&part("train-00000-of-00002.parquet"), &[10, 20, 30], Some(&[0, 1, 1]), None);
        write(&part("train-00001-of-00002.parquet"), &[40], Some(&[0]), None);
        write(&part("validation-00000-of-00001.parquet"), &[50, 60], Some(&[1, 0]), None);
        write(&part("test-00000-of-00001.parquet"), &[70], Some(&[1]), None);
        let data = ImageData::open(&folder, ALL).unwrap();
        let validation = data.validation.unwrap();
        assert_eq!((data.train.len(), validation.len()), (4, 2), "the test is left alone");
        assert_eq!(*data.train.classes, ["cat", "dog"]);
        let labels: Vec<u32> = data.train.examples.iter().map(|example| example.label).collect();
        assert_eq!(labels, [0, 1, 1, 0]);
        let last = data.train.examples[3].picture as usize;
        assert_eq!(data.train.pictures.load(last, 100).unwrap().at(2, 1), [40, 0, 0]);
        assert!(data.train.pictures.name(last).starts_with("row 0 of "));
    }

    #[test]
    fn a_single_file_may_hold_captions() {
        let file = scratch("images_parquet_captions").join("pictures.parquet");
        write(&file, &[10, 20], None, Some(&["a cat", "two dogs"]));
        let data = ImageData::open(&file, ALL).unwrap();
        assert_eq!(data.train.captions.to_vec(), [["a cat"], ["two dogs"]]);
        assert!(data.train.classes.is_empty());
    }

    #[test]
    fn damaged_and_other_files_are_named() {
        let folder = scratch("images_parquet_damaged");
        let file = folder.join("a.parquet");
        write(&file, &[10, 20], Some(&[0, -1]), None);
        let refused = || ImageData::open(&folder, ALL).err().unwrap().to_string();
        assert!(refused().contains("a.parquet` has a wrong label (row 1)"), "{}", refused());
        write(&file, &[10, 20], None, None);
        assert!(refused().contains("neither a column `label` nor `text`"), "{}", refused());
        let whole = fs::read(&file).unwrap();
        fs::write(&file, &whole[..whole.len() / 2]).unwrap();
        assert!(refused().contains("a.parquet` cannot be read"), "{}", refused());
    }
}
