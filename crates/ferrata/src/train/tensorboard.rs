//! TensorBoard event files with scalars and pictures: TFRecord framing around a few protocol-buffer fields.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// Appends scalar events to a file of its own; a resumed run adds another file.
pub(super) struct EventFile {
    path: PathBuf,
    file: File,
}

impl EventFile {
    /// Begins a file in `folder`. Viewers drop what earlier files hold for steps after `step`.
    pub(super) fn create(folder: &Path, step: u64) -> io::Result<EventFile> {
        let time = now();
        let name = format!("events.out.tfevents.{:010}.{}", time as u64, std::process::id());
        let path = folder.join(name);
        let file = OpenOptions::new().create(true).append(true).open(&path)?;
        let mut events = EventFile { path, file };
        let version = Message::default().double(1, time).text(3, "brain.Event:2");
        // SessionLog with status START.
        let start =
            Message::default().double(1, time).varint(2, step).message(7, |log| log.varint(1, 1));
        events.file.write_all(&[record(&version.0), record(&start.0)].concat())?;
        Ok(events)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Adds one event with the values of one step.
    pub(super) fn scalars(&mut self, step: u64, values: &[(String, f64)]) -> io::Result<()> {
        let summary = values.iter().fold(Message::default(), |summary, (tag, value)| {
            summary.message(1, |entry| entry.text(1, tag).float(2, *value as f32))
        });
        self.file.write_all(&record(&event(now(), step, summary)))
    }

    /// Adds one event with a PNG file of a picture, whose size is width and height.
    pub(super) fn picture(
        &mut self,
        step: u64,
        tag: &str,
        [width, height]: [usize; 2],
        png: &[u8],
    ) -> io::Result<()> {
        const RGB: u64 = 3;
        let summary = Message::default().message(1, |entry| {
            entry.text(1, tag).message(4, |image| {
                image.varint(1, height as u64).varint(2, width as u64).varint(3, RGB).bytes(4, png)
            })
        });
        self.file.write_all(&record(&event(now(), step, summary)))
    }
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64())
}

fn event(time: f64, step: u64, summary: Message) -> Vec<u8> {
    Message::default().double(1, time).varint(2, step).bytes(5, &summary.0).0
}

/// A protocol-buffer message under construction.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn key(&mut self, field: u64, wire: u64) {
        self.raw_varint(field << 3 | wire);
    }

    fn raw_varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn varint(mut self, field: u64, value: u64) -> Message {
        self.key(field, 0);
        self.raw_varint(value);
        self
    }

    fn double(mut self, field: u64, value: f64) -> Message {
        self.key(field, 1);
        self.0.extend(value.to_le_bytes());
        self
    }

    fn float(mut self, field: u64, value: f32) -> Message {
        self.key(field, 5);
        self.0.extend(value.to_le_bytes());
        self
    }

    fn bytes(mut self, field: u64, value: &[u8]) -> Message {
        self.key(field, 2);
        self.raw_varint(value.len() as u64);
        self.0.extend(value);
        self
    }

    fn text(self, field: u64, value: &str) -> Message {
        self.bytes(field, value.as_bytes())
    }

    fn message(self, field: u64, build: impl FnOnce(Message) -> Message) -> Message {
        let inner = build(Message::default());
        self.bytes(field, &inner.0)
    }
}

/// Length, its checksum, data, its checksum.
fn record(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    let mut out = length.to_vec();
    out.extend(masked(crc32c(&length)).to_le_bytes());
    out.extend(data);
    out.extend(masked(crc32c(data)).to_le_bytes());
    out
}

/// Checksums of data that itself holds checksums are stored rotated and shifted.
fn masked(crc: u32) -> u32 {
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}

fn crc32c(bytes: &[u8]) -> u32 {
    const REVERSED_POLYNOMIAL: u32 = 0x82f6_3b78;
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            crc >> 1 ^ if crc & 1 == 1 { REVERSED_POLYNOMIAL } else { 0 }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_match_published_ones() {
        // RFC 3720, B.4.
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&(0..32).collect::<Vec<u8>>()), 0x46dd_794e);
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn an_event_has_the_bytes_of_the_format() {
        let summary = Message::default().message(1, |entry| entry.text(1, "loss").float(2, 0.5));
        let bytes = event(1.0, 300, summary);
        let expected = [
            &[0x09][..],
            &1f64.to_le_bytes(),
            &[0x10, 0xac, 0x02],
            &[0x2a, 13, 0x0a, 11, 0x0a, 4],
            b"loss",
            &[0x15],
            &0.5f32.to_le_bytes(),
        ]
        .concat();
        assert_eq!(bytes, expected);
        let framed = record(&bytes);
        assert_eq!(framed.len(), bytes.len() + 16);
        assert_eq!(framed[..8], (bytes.len() as u64).to_le_bytes());
    }
}
