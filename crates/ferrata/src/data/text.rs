//! Text from files, folders and JSON lines.

use std::fmt;
use std::fs;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ferrata_formats::MappedFile;
use serde_json::Value;

use super::{Error, Result};

/// One piece of text: a file, or a line of a JSON-lines file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// The file that it comes from.
    pub source: PathBuf,
    /// The text.
    pub text: Text,
}

/// Text in memory, or in a large file that is mapped: pages are read when they are needed, so the
/// texts together may be larger than memory. Dereferences to the text; keep that, since every time
/// a mapped file is looked over from beginning to end.
#[derive(Clone)]
pub struct Text(Storage);

#[derive(Clone)]
enum Storage {
    Memory(String),
    /// From this byte on: a byte-order mark is no text.
    Mapped(Arc<MappedFile>, usize),
}

/// Smaller files are read, as a process may map only so many.
const MAPPED_FROM: u64 = 1 << 20;

impl Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        match &self.0 {
            Storage::Memory(text) => text,
            Storage::Mapped(file, start) => {
                let bytes = file.get(*start..).unwrap_or_default();
                // It was UTF-8 when it was opened. Where another program has spoiled it, it ends.
                let valid = str::from_utf8(bytes).map_or_else(|e| e.valid_up_to(), str::len);
                str::from_utf8(&bytes[..valid]).unwrap_or_default()
            }
        }
    }
}

impl AsRef<str> for Text {
    fn as_ref(&self) -> &str {
        self
    }
}

impl<T: Into<String>> From<T> for Text {
    fn from(text: T) -> Text {
        Text(Storage::Memory(text.into()))
    }
}

impl PartialEq for Text {
    fn eq(&self, other: &Text) -> bool {
        **self == **other
    }
}

impl Eq for Text {}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

impl AsRef<str> for Document {
    fn as_ref(&self) -> &str {
        &self.text
    }
}

/// What [`collect_text`] takes from folders and files.
#[derive(Clone, Debug)]
pub struct TextOptions {
    /// In folders, files whose names end in one of these (without the dot).
    pub extensions: Vec<String>,
    /// The field of a JSON line that holds the text.
    pub json_field: String,
    /// Stop before the file that would exceed this number of bytes in total.
    pub max_bytes: Option<u64>,
}

impl Default for TextOptions {
    fn default() -> Self {
        let extensions = ["txt", "md", "rs", "jsonl"].map(str::to_owned).to_vec();
        TextOptions { extensions, json_field: "text".into(), max_bytes: None }
    }
}

/// The outcome of [`collect_text`].
#[derive(Debug)]
pub struct Collected {
    /// The texts, in a fixed order.
    pub documents: Vec<Document>,
    /// Files in folders that were passed over because they are not text; to be shown to the user.
    pub skipped: Vec<Error>,
    /// The number of files left out because of [`TextOptions::max_bytes`].
    pub left_out: usize,
}

impl Collected {
    /// The total length of the texts in bytes.
    pub fn bytes(&self) -> usize {
        self.documents.iter().map(|document| document.text.len()).sum()
    }
}

/// Reads text from `paths` in the order given. A file is read whatever its name; a folder is
/// searched in the order of names, hidden entries and symbolic links to folders left out. Files
/// ending in `.jsonl` give one document per line.
///
/// # Errors
/// [`Error::Io`] for a missing file, [`Error::NotText`] for a binary file given by name,
/// [`Error::JsonLine`], [`Error::NoText`] if nothing but white space was found.
pub fn collect_text<P: AsRef<Path>>(paths: &[P], options: &TextOptions) -> Result<Collected> {
    let mut collected = Collected { documents: Vec::new(), skipped: Vec::new(), left_out: 0 };
    let mut total = 0;
    for path in paths {
        let path = path.as_ref();
        let data = fs::metadata(path).map_err(|e| Error::io("read", path, e))?;
        let mut files = Vec::new();
        if data.is_dir() {
            let wanted = |name: &str| {
                let extension = Path::new(name).extension().and_then(|e| e.to_str());
                extension.is_some_and(|e| options.extensions.iter().any(|known| known == e))
            };
            walk(path, &wanted, &mut files)?;
        } else {
            files.push(path.to_path_buf());
        }
        for file in files {
            let size = fs::metadata(&file).map_err(|e| Error::io("read", &file, e))?.len();
            if collected.left_out > 0 || options.max_bytes.is_some_and(|max| total + size > max) {
                collected.left_out += 1;
                continue;
            }
            match read_documents(&file, &options.json_field) {
                Ok(documents) => collected.documents.extend(documents),
                Err(error @ Error::NotText { .. }) if data.is_dir() => {
                    collected.skipped.push(error);
                }
                Err(error) => return Err(error),
            }
            total += size;
        }
    }
    if collected.documents.iter().all(|document| document.text.trim().is_empty()) {
        return Err(no_text(paths, options, collected.left_out));
    }
    Ok(collected)
}

fn no_text<P: AsRef<Path>>(paths: &[P], options: &TextOptions, left_out: usize) -> Error {
    if let (1.., Some(max)) = (left_out, options.max_bytes) {
        let place = format!("the files that fit the limit of {max} bytes");
        return Error::NoText { place, remedy: "raise the limit" };
    }
    let names: Vec<String> =
        paths.iter().take(3).map(|path| format!("`{}`", path.as_ref().display())).collect();
    let more = if paths.len() > names.len() { ", …" } else { "" };
    Error::NoText {
        place: format!("{}{more} (file types {})", names.join(", "), options.extensions.join(", ")),
        remedy: "give files that hold text, or folders with such file types",
    }
}

/// Adds the files below `folder` whose names are wanted, in the order of names.
pub(super) fn walk(
    folder: &Path,
    wanted: &dyn Fn(&str) -> bool,
    files: &mut Vec<PathBuf>,
) -> Result<()> {
    let failed = |e| Error::io("list", folder, e);
    let mut entries = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        entries.push((entry.file_name(), entry.file_type().map_err(failed)?));
    }
    entries.sort_by(|(a, _), (b, _)| a.cmp(b));
    for (name, kind) in entries {
        let path = folder.join(&name);
        let name = name.to_string_lossy();
        if name.starts_with('.') {
            continue;
        }
        if kind.is_dir() {
            walk(&path, wanted, files)?;
        } else if wanted(&name) && path.is_file() {
            files.push(path);
        }
    }
    Ok(())
}

fn read_documents(path: &Path, json_field: &str) -> Result<Vec<Document>> {
    let text = read_text(path)?;
    if path.extension().is_some_and(|e| e == "jsonl") {
        return parse_json_lines(&text, path, json_field);
    }
    Ok(vec![Document { source: path.to_path_buf(), text }])
}

/// The text of a UTF-8 file, without its byte-order mark.
pub(super) fn read_text(path: &Path) -> Result<Text> {
    let failed = |e| Error::io("read", path, e);
    let check = |bytes: &[u8]| {
        let wrong =
            |what: String, offset| Error::NotText { path: path.to_path_buf(), what, offset };
        if let Some(offset) = bytes.iter().position(|&b| b == 0) {
            return Err(wrong("a zero byte".into(), offset));
        }
        str::from_utf8(bytes).map(|text| text.starts_with('\u{feff}')).map_err(|e| {
            let offset = e.valid_up_to();
            let byte = bytes.get(offset).copied().unwrap_or_default();
            wrong(format!("invalid UTF-8 (byte 0x{byte:02x})"), offset)
        })
    };
    if fs::metadata(path).map_err(failed)?.len() >= MAPPED_FROM {
        let file = MappedFile::open(path)?;
        let start = if check(&file)? { '\u{feff}'.len_utf8() } else { 0 };
        return Ok(Text(Storage::Mapped(Arc::new(file), start)));
    }
    let bytes = fs::read(path).map_err(failed)?;
    check(&bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    Ok(text.strip_prefix('\u{feff}').unwrap_or(&text).into())
}

/// One document per line that is not blank; `path` is for messages.
pub(super) fn parse_json_lines(text: &str, path: &Path, field: &str) -> Result<Vec<Document>> {
    let mut documents = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if line.trim().is_empty() {
            continue;
        }
        let wrong =
            |what: String| Err(Error::JsonLine { path: path.to_path_buf(), line: index + 1, what });
        let value: Value = match serde_json::from_str(line) {
            Ok(value) => value,
            Err(e) => return wrong(format!("not valid JSON ({e}); correct or remove the line")),
        };
        match value.get(field) {
            Some(Value::String(text)) => {
                documents.push(Document { source: path.to_path_buf(), text: text.as_str().into() });
            }
            Some(_) => return wrong(format!("the field {field:?} is not a string; correct it")),
            None => {
                return wrong(format!("there is no field {field:?}; name the field with the text"));
            }
        }
    }
    Ok(documents)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::testing::scratch;
    use ferrata_ir::testing::fuzz;

    fn texts(collected: &Collected) -> Vec<&str> {
        collected.documents.iter().map(|document| &*document.text).collect()
    }

    #[test]
    fn folders_are_read_in_the_order_of_names() {
        let folder = scratch("text_order");
        for (name, text) in [
            ("b.txt", "1"),
            ("a/z.md", "0"),
            ("c/d/e.rs", "2"),
            ("c.json", "no"),
            (".git/x.txt", "hidden"),
            ("c/.x.txt", "hidden"),
            ("e.jsonl", "{\"text\": \"3\"}\n\n{\"text\": \"4\", \"id\": 5}\n"),
        ] {
            let path = folder.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        #[cfg(unix)]
        std::os::unix::fs::symlink(&folder, folder.join("a/loop")).unwrap();
        let collected = collect_text(&[&folder], &TextOptions::default()).unwrap();
        assert_eq!(texts(&collected), ["0", "1", "2", "3", "4"]);
        assert_eq!((collected.bytes(), collected.left_out), (5, 0));
        let one = collect_text(&[folder.join("c.json")], &TextOptions::default()).unwrap();
        assert_eq!(texts(&one), ["no"], "a file given by name is read whatever its type");
        let limited = TextOptions { max_bytes: Some(2), ..TextOptions::default() };
        let limited = collect_text(&[&folder], &limited).unwrap();
        assert_eq!((texts(&limited), limited.left_out), (vec!["0", "1"], 2));
        let none = TextOptions { max_bytes: Some(0), ..TextOptions::default() };
        let error = collect_text(&[&folder], &none).unwrap_err().to_string();
        assert!(error.contains("limit of 0 bytes; raise the limit"), "{error}");
    }

    #[test]
    fn wrong_files_are_named() {
        let folder = scratch("text_wrong");
        let write = |name: &str, content: &[u8]| {
            fs::write(folder.join(name), content).unwrap();
            folder.join(name)
        };
        let options = TextOptions::default();
        let error_of = |path: PathBuf| {
            let error = collect_text(&[path], &options).unwrap_err().to_string();
            assert!(!error.contains('\n'), "{error}");
            error
        };
        let error = error_of(folder.join("none.txt"));
        assert!(error.contains("none.txt") && error.contains("check the path"), "{error}");
        let error = error_of(write("zero.bin", b"abc\0def"));
        assert!(error.contains("zero.bin") && error.contains("byte 3"), "{error}");
        let error = error_of(write("latin.txt", b"caf\xe9 bar"));
        assert!(error.contains("byte 0xe9") && error.contains("at byte 3"), "{error}");
        assert!(error_of(write("empty.txt", b"")).contains("there is no text"));
        assert!(error_of(write("blank.txt", b" \n\t")).contains("there is no text"));
        let error = error_of(write("a.jsonl", b"{\"text\":\"x\"}\n{\"body\":\"y\"}"));
        assert!(error.contains("line 2") && error.contains("no field \"text\""), "{error}");
        assert!(error_of(write("b.jsonl", b"{\"text\":3}")).contains("not a string"));
        assert!(error_of(write("c.jsonl", b"{\"text\":")).contains("line 1: not valid JSON"));

        let mixed = folder.join("mixed");
        fs::create_dir(&mixed).unwrap();
        assert!(error_of(mixed.clone()).contains("file types txt"));
        fs::write(mixed.join("good.txt"), "good").unwrap();
        fs::write(mixed.join("bad.txt"), b"\xff").unwrap();
        let collected = collect_text(&[&mixed], &options).unwrap();
        assert_eq!(texts(&collected), ["good"]);
        assert!(collected.skipped[0].to_string().contains("bad.txt"));
    }

    #[test]
    fn a_byte_order_mark_is_no_text() {
        let path = scratch("text_bom").join("a.txt");
        fs::write(&path, "\u{feff}hello").unwrap();
        assert_eq!(&*read_text(&path).unwrap(), "hello");
    }

    #[test]
    fn large_files_are_mapped() {
        let folder = scratch("text_large");
        let path = folder.join("a.txt");
        let text = "ab\u{e9}\n".repeat(300_000);
        fs::write(&path, format!("\u{feff}{text}")).unwrap();
        let read = read_text(&path).unwrap();
        assert!(matches!(read.0, Storage::Mapped(..)) && *read == *text);
        let mut bad = text.into_bytes();
        let at = bad.len() - 1;
        bad[at] = 0xff;
        fs::write(folder.join("bad.txt"), bad).unwrap();
        let error = read_text(&folder.join("bad.txt")).unwrap_err().to_string();
        assert!(error.contains("bad.txt") && error.contains(&at.to_string()), "{error}");
    }

    #[test]
    fn mutated_json_lines_never_panic() {
        let good = b"{\"text\": \"a \\u00e9 \\n\", \"n\": 1}\n{\"text\": \"b\"}\n";
        fuzz(good, 20_000, |bytes| {
            let text = String::from_utf8_lossy(bytes);
            parse_json_lines(&text, Path::new("a.jsonl"), "text").map(drop)
        });
    }
}
