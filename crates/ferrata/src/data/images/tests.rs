//! Folders, files and batches; odd and damaged pictures, which are made here.

use std::fs;
use std::io::{Cursor, Write};
use std::path::Path;
use std::sync::Arc;

use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use image::{DynamicImage, ExtendedColorType, ImageBuffer, ImageFormat};

use super::*;
use crate::data::testing::scratch;
use crate::data::{Batch, BatchSource, Loader, LoaderState};

const PIXELS: u64 = 1 << 20;

/// A picture of one colour with a darker corner.
fn picture(colour: [u8; 3]) -> Picture {
    let mut picture = Picture::filled(10, 8, colour);
    picture.set(0, 0, colour.map(|value| value / 2));
    picture
}

fn encoded(image: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

fn rgb(picture: &Picture) -> DynamicImage {
    let (width, height) = (picture.width as u32, picture.height as u32);
    ImageBuffer::from_raw(width, height, picture.pixels.clone())
        .map(DynamicImage::ImageRgb8)
        .unwrap()
}

fn decode(bytes: &[u8]) -> Picture {
    Picture::decode(bytes, PIXELS).unwrap()
}

#[track_caller]
fn refused(bytes: &[u8], part: &str) {
    let what = Picture::decode(bytes, PIXELS).unwrap_err();
    assert!(what.contains(part), "{what:?} does not say {part:?}");
}

/// A PNG chunk, with its checksum.
fn chunk(kind: &[u8; 4], data: &[u8]) -> Vec<u8> {
    let mut crc = flate2::Crc::new();
    crc.update(kind);
    crc.update(data);
    let length = (data.len() as u32).to_be_bytes();
    [&length[..], kind, data, &crc.sum().to_be_bytes()].concat()
}

/// A PNG file of its header, other chunks and rows of samples with filter bytes.
fn png(width: u32, height: u32, depth: u8, colour: u8, extra: &[Vec<u8>], rows: &[u8]) -> Vec<u8> {
    let header = [&width.to_be_bytes()[..], &height.to_be_bytes(), &[depth, colour, 0, 0, 0]];
    let mut zlib = ZlibEncoder::new(Vec::new(), Compression::fast());
    zlib.write_all(rows).unwrap();
    [
        b"\x89PNG\r\n\x1a\n".to_vec(),
        chunk(b"IHDR", &header.concat()),
        extra.concat(),
        chunk(b"IDAT", &zlib.finish().unwrap()),
        chunk(b"IEND", &[]),
    ]
    .concat()
}

#[test]
fn all_formats_are_decoded_whatever_the_name() {
    let original = picture([200, 100, 40]);
    for format in [ImageFormat::Png, ImageFormat::Gif, ImageFormat::Bmp, ImageFormat::WebP] {
        assert_eq!(decode(&encoded(&rgb(&original), format)), original, "{format:?}");
    }
    let jpeg = decode(&encoded(&rgb(&original), ImageFormat::Jpeg));
    let near = jpeg.pixels.iter().zip(&original.pixels).filter(|(a, b)| a.abs_diff(**b) < 40);
    assert!(near.count() * 10 > jpeg.pixels.len() * 9);
    let folder = scratch("images_wrong_extension");
    let file = folder.join("a.jpg");
    fs::write(&file, encoded(&rgb(&original), ImageFormat::Png)).unwrap();
    assert_eq!(set::load_file(&file, PIXELS).unwrap(), original);
}

#[test]
fn odd_samples_are_converted() {
    let sixteen = ImageBuffer::from_fn(2, 1, |x, _| image::Rgb([65535u16, 257 * 100, x as u16]));
    let sixteen = encoded(&DynamicImage::ImageRgb16(sixteen), ImageFormat::Png);
    assert_eq!(decode(&sixteen).pixels, [255, 100, 0, 255, 100, 0]);
    let grey = png(3, 1, 1, 0, &[], &[0, 0b0100_0000]);
    assert_eq!(decode(&grey).pixels, [[0; 3], [255; 3], [0; 3]].concat());
    let palette = chunk(b"PLTE", &[10, 20, 30, 40, 50, 60]);
    assert_eq!(decode(&png(2, 1, 8, 3, &[palette], &[0, 1, 0])).pixels, [40, 50, 60, 10, 20, 30]);
    let alpha = ImageBuffer::from_raw(3, 1, vec![0u8, 0, 0, 0, 0, 0, 0, 255, 100, 0, 0, 128]);
    let alpha = encoded(&DynamicImage::ImageRgba8(alpha.unwrap()), ImageFormat::Png);
    assert_eq!(decode(&alpha).pixels, [255, 255, 255, 0, 0, 0, 177, 127, 127]);
    let tiny = Picture::filled(1, 1, [1, 2, 3]);
    assert_eq!(decode(&tiny.to_png().unwrap()), tiny);
    let long = Picture::filled(20_000, 1, [9, 8, 7]);
    let long = decode(&long.to_png().unwrap());
    assert_eq!(transforms().centred(&long), Picture::filled(6, 6, [9, 8, 7]));
}

#[test]
fn the_first_frame_of_an_animation_is_taken() {
    let mut bytes = Vec::new();
    let mut encoder = image::codecs::gif::GifEncoder::new(&mut bytes);
    for colour in [[250, 0, 0], [0, 250, 0]] {
        let frame = picture(colour);
        encoder.encode(&frame.pixels, 10, 8, ExtendedColorType::Rgb8).unwrap();
    }
    drop(encoder);
    assert_eq!(decode(&bytes), picture([250, 0, 0]));
}

/// A baseline JPEG of 8 x 8 pixels in four components that are the same everywhere, as Adobe
/// writes CMYK: inverted.
fn cmyk_jpeg(values: [u8; 4]) -> Vec<u8> {
    let segment = |marker: u8, data: &[u8]| {
        let length = (data.len() as u16 + 2).to_be_bytes();
        [&[0xff, marker][..], &length, data].concat()
    };
    // One code for DC, of 4 bits of length 8; one for AC, the end of the block.
    let table = |class: u8, code: u8| {
        let mut counts = [0u8; 16];
        counts[0] = 1;
        [&[class][..], &counts, &[code]].concat()
    };
    let mut bits = String::new();
    for value in values {
        // Quantised by 1: the DC coefficient is eight times the mean.
        let dc = 8 * (i32::from(value) - 128);
        let size = 11;
        let code = if dc < 0 { dc + (1 << size) - 1 } else { dc };
        // Values too small for their size would be another sign.
        let (size, code) = match dc.unsigned_abs() < 1 << 10 {
            true => (10, if dc < 0 { dc + (1 << 10) - 1 } else { dc }),
            false => (size, code),
        };
        assert_eq!(size, 10, "values of one size only");
        bits += &format!("0{code:010b}0");
    }
    while !bits.len().is_multiple_of(8) {
        bits.push('1');
    }
    let data = (0..bits.len() / 8).flat_map(|i| {
        let byte = u8::from_str_radix(&bits[8 * i..8 * i + 8], 2).unwrap();
        if byte == 0xff { vec![0xff, 0] } else { vec![byte] }
    });
    let frame: Vec<u8> =
        [8, 0, 8, 0, 8, 4].into_iter().chain((1..5).flat_map(|i| [i, 0x11, 0])).collect();
    let scan: Vec<u8> =
        [4].into_iter().chain((1..5).flat_map(|i| [i, 0])).chain([0, 63, 0]).collect();
    [
        vec![0xff, 0xd8],
        segment(0xee, b"Adobe\0\x64\0\0\0\0\0"),
        segment(0xdb, &[&[0][..], &[1; 64]].concat()),
        segment(0xc0, &frame),
        segment(0xc4, &table(0x00, 10)),
        segment(0xc4, &table(0x10, 0)),
        segment(0xda, &scan),
        data.collect(),
        vec![0xff, 0xd9],
    ]
    .concat()
}

#[test]
fn cmyk_becomes_rgb() {
    // No cyan, half of magenta, much yellow, a little black; 255 is no ink.
    let decoded = decode(&cmyk_jpeg([220, 60, 30, 230]));
    assert_eq!((decoded.width, decoded.height), (8, 8));
    let expected = [220.0, 60.0, 30.0].map(|ink: f64| ink * 230.0 / 255.0);
    for (found, expected) in decoded.at(3, 3).iter().zip(expected) {
        assert!((f64::from(*found) - expected).abs() < 6.0, "{:?} {expected:?}", decoded.at(3, 3));
    }
}

#[test]
fn what_is_no_whole_picture_is_refused_by_name() {
    refused(b"", "empty");
    refused(b"GIF is what I would like to be", "");
    refused(b"<html>not found</html>", "it is no PNG");
    for format in
        [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::Gif, ImageFormat::WebP, ImageFormat::Bmp]
    {
        let noisy = ImageBuffer::from_fn(40, 40, |x, y| {
            image::Rgb([(x * y * 7) as u8, (x * 5 + y * y) as u8, 3])
        });
        let whole = encoded(&DynamicImage::ImageRgb8(noisy), format);
        for length in [whole.len() / 2, whole.len() - 20, 20, 5] {
            assert!(Picture::decode(&whole[..length], PIXELS).is_err(), "{format:?} {length}");
        }
    }
    // A few bytes that claim 100,000 x 100,000 pixels.
    refused(&png(100_000, 100_000, 8, 2, &[], &[0; 100]), "100000 x 100000 pixels");
    refused(&encoded(&DynamicImage::new_rgb8(1025, 1024), ImageFormat::Png), "are allowed");
    decode(&encoded(&DynamicImage::new_rgb8(1024, 1024), ImageFormat::Png));
    refused(&png(0, 5, 8, 2, &[], &[0; 5]), "");
}

#[test]
fn mutated_files_never_panic() {
    for format in
        [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::Gif, ImageFormat::WebP, ImageFormat::Bmp]
    {
        let whole = encoded(&rgb(&picture([9, 99, 199])), format);
        ferrata_ir::testing::fuzz(&whole, 400, |bytes| Picture::decode(bytes, 10_000).map(drop));
    }
}

fn transforms() -> Transforms {
    Transforms {
        size: 6,
        crop: Crop::Random { padding: 1 },
        eval_crop: 1.0,
        flip: 0.5,
        jitter: Jitter { brightness: 0.3, ..Jitter::default() },
        rand_augment: Some(RandAugment { operations: 1, magnitude: 9.0 }),
        mean: [0.5; 3],
        std: [0.5; 3],
    }
}

/// Class folders with so many pictures each, all of different colours.
fn class_folders(folder: &Path, classes: &[(&str, u8)]) {
    for (number, (class, count)) in classes.iter().enumerate() {
        fs::create_dir_all(folder.join(class)).unwrap();
        for i in 0..*count {
            let bytes = picture([50 * number as u8, 10 * i, 255 - 10 * i]).to_png().unwrap();
            fs::write(folder.join(class).join(format!("{i:02}.png")), bytes).unwrap();
        }
    }
}

const SPLIT: ImageSplit = ImageSplit { validation: 0.25, seed: 1 };

#[test]
fn folders_are_classes_and_are_split_class_by_class() {
    let folder = scratch("images_folders");
    class_folders(&folder, &[("cat", 8), ("dog", 12), ("emu", 1)]);
    fs::write(folder.join("cat/notes.md"), "no picture").unwrap();
    let data = ImageData::open(&folder, SPLIT).unwrap();
    let validation = data.validation.unwrap();
    assert_eq!(*data.train.classes, ["cat", "dog", "emu"]);
    let counts = |set: &ImageSet| {
        [0, 1, 2].map(|class| set.examples.iter().filter(|e| e.label == class).count())
    };
    assert_eq!((counts(&data.train), counts(&validation)), ([6, 9, 1], [2, 3, 0]));
    assert!(data.notes.len() == 1 && data.notes[0].contains("notes.md"), "{:?}", data.notes);
    let same = ImageData::open(&folder, SPLIT).unwrap();
    assert_eq!((same.identity, same.train.examples), (data.identity.clone(), data.train.examples));
    let other = ImageData::open(&folder, ImageSplit { seed: 2, ..SPLIT }).unwrap();
    assert_ne!(other.identity, data.identity);
    let all = ImageData::open(&folder, ImageSplit { validation: 0.0, seed: 0 }).unwrap();
    assert_eq!((all.train.len(), all.validation.is_none()), (21, true));

    let parts = scratch("images_parts");
    class_folders(&parts.join("train"), &[("a", 3), ("b", 2)]);
    class_folders(&parts.join("val"), &[("b", 4)]);
    let data = ImageData::open(&parts, SPLIT).unwrap();
    let validation = data.validation.unwrap();
    assert_eq!((data.train.len(), validation.len(), validation.examples[0].label), (5, 4, 1));
    class_folders(&parts.join("val"), &[("c", 1)]);
    let error = ImageData::open(&parts, SPLIT).err().unwrap().to_string();
    assert!(error.contains("class `c`"), "{error}");
}

#[test]
fn what_holds_no_images_is_said() {
    let folder = scratch("images_none");
    for path in [folder.clone(), folder.join("missing")] {
        let error = ImageData::open(&path, SPLIT).err().unwrap().to_string();
        assert!(error.contains("images_none"), "{error}");
    }
    class_folders(&folder, &[("only", 1)]);
    let error = ImageData::open(&folder, SPLIT).err().unwrap().to_string();
    assert!(error.contains("too few images"), "{error}");
}

fn batches(set: &ImageSet, on_damaged: OnDamaged) -> ImageBatches {
    let reader = Arc::new(Reader::new(on_damaged, PIXELS));
    ImageBatches::new(set.clone(), reader, transforms(), 4, 7).unwrap()
}

#[test]
fn workers_and_resuming_change_nothing() {
    let folder = scratch("images_workers");
    class_folders(&folder, &[("cat", 5), ("dog", 6)]);
    let set = ImageData::open(&folder, SPLIT).unwrap().train;
    let source = Arc::new(batches(&set, OnDamaged::Stop));
    let expected: Vec<Batch> = (0..9).map(|step| source.batch(step).unwrap()).collect();
    assert_eq!(expected[0].get(IMAGES).unwrap().shape, [4, 3, 6, 6]);
    for threads in [1, 2, 5] {
        let mut loader = Loader::parallel(source.clone(), LoaderState::default(), 4, threads);
        let first: Vec<Batch> = (0..4).map(|_| loader.next_batch().unwrap().unwrap()).collect();
        let state = loader.state();
        let again = Arc::new(batches(&set, OnDamaged::Stop));
        let mut resumed = Loader::parallel(again, state, 2, threads + 1);
        let rest: Vec<Batch> = (0..5).map(|_| resumed.next_batch().unwrap().unwrap()).collect();
        assert!([first, rest].concat() == expected, "{threads} threads");
    }
    // The second epoch shows the same pictures in another way.
    let epoch: Vec<i64> =
        expected.iter().take(2).flat_map(|b| b.integers(LABELS).unwrap().to_vec()).collect();
    assert_eq!(epoch.iter().filter(|label| **label == 0).count(), 4, "{epoch:?}");
    assert_ne!(expected[0], expected[2]);
}

#[test]
fn damaged_files_are_named_and_replaced_or_fatal() {
    let folder = scratch("images_damaged");
    class_folders(&folder, &[("cat", 6), ("dog", 6)]);
    let whole = fs::read(folder.join("cat/02.png")).unwrap();
    fs::write(folder.join("cat/02.png"), &whole[..whole.len() / 2]).unwrap();
    fs::write(folder.join("dog/03.png"), "").unwrap();
    let all = ImageSplit { validation: 0.0, seed: 0 };
    let set = ImageData::open(&folder, all).unwrap().train;
    let fatal = batches(&set, OnDamaged::Stop);
    let error = (0..3).find_map(|step| fatal.batch(step).err()).unwrap().to_string();
    assert!(error.contains(".png` cannot be used") && error.contains("on_damaged"), "{error}");
    let reader = Arc::new(Reader::new(OnDamaged::Skip, PIXELS));
    let skip = ImageBatches::new(set.clone(), reader.clone(), transforms(), 4, 7).unwrap();
    let seen: Vec<Batch> = (0..6).map(|step| skip.batch(step).unwrap()).collect();
    assert!(seen.iter().all(|batch| batch.get(IMAGES).unwrap().shape[0] == 4));
    assert_eq!(reader.damaged(), 2);
    let news = reader.news();
    assert!(news.iter().any(|line| line.contains("02.png` is left out")), "{news:?}");
    assert!(news.iter().any(|line| line.contains("03.png` is left out: the file is empty")));
    assert!(reader.news().is_empty(), "told once");
    let order = ImagesInOrder::new(set, reader, transforms(), 5).unwrap();
    let weights: Vec<f32> = (0..3)
        .flat_map(|step| {
            order.batch(step).unwrap().get(WEIGHTS).unwrap().as_f32().unwrap().to_vec()
        })
        .collect();
    let zeros: Vec<usize> = (0..15).filter(|&i| weights[i] == 0.0).collect();
    assert_eq!(zeros, [2, 9, 12, 13, 14]);
    assert!(order.batch(3).is_err());
}

#[test]
fn nothing_but_damaged_files_is_an_error() {
    let folder = scratch("images_all_damaged");
    fs::create_dir_all(folder.join("a")).unwrap();
    (0..3).for_each(|i| fs::write(folder.join(format!("a/{i}.png")), "no").unwrap());
    let set = ImageData::open(&folder, ImageSplit { validation: 0.0, seed: 0 }).unwrap().train;
    let error = batches(&set, OnDamaged::Skip).batch(0).unwrap_err().to_string();
    assert!(error.contains("3 pictures in a row"), "{error}");
}

#[test]
fn mixup_mixes_pictures_and_labels_alike() {
    let folder = scratch("images_mixup");
    class_folders(&folder, &[("cat", 4), ("dog", 4)]);
    let set = ImageData::open(&folder, ImageSplit { validation: 0.0, seed: 0 }).unwrap().train;
    let plain = batches(&set, OnDamaged::Stop);
    let mixed = batches(&set, OnDamaged::Stop).with_mixup(1.0);
    for step in 0..4 {
        let (a, b) = (plain.batch(step).unwrap(), mixed.batch(step).unwrap());
        let (old, new) = (a.get(IMAGES).unwrap().as_f32().unwrap(), b.get(IMAGES).unwrap());
        let labels = a.integers(LABELS).unwrap();
        let shares = b.get(LABELS).unwrap();
        assert_eq!(shares.shape, [4, 2]);
        let (new, shares) = (new.as_f32().unwrap(), shares.as_f32().unwrap());
        let row = old.len() / 4;
        for i in 0..4 {
            assert!((shares[2 * i] + shares[2 * i + 1] - 1.0).abs() < 1e-6);
            if labels[i] == labels[3 - i] {
                continue;
            }
            let share = shares[2 * i + labels[i] as usize];
            let expected = share * old[i * row + 5] + (1.0 - share) * old[(3 - i) * row + 5];
            assert!((new[i * row + 5] - expected).abs() < 1e-5);
        }
    }
}

fn idx(sizes: &[u32], bytes: &[u8]) -> Vec<u8> {
    let sizes: Vec<u8> = sizes.iter().flat_map(|size| size.to_be_bytes()).collect();
    [&[0, 0, 8, (sizes.len() / 4) as u8][..], &sizes, bytes].concat()
}

#[test]
fn mnist_is_read_also_compressed() {
    let folder = scratch("images_mnist");
    let pixels: Vec<u8> = (0..5 * 6).collect();
    let mut gz = GzEncoder::new(Vec::new(), Compression::fast());
    gz.write_all(&idx(&[5, 3, 2], &pixels)).unwrap();
    fs::write(folder.join("train-images-idx3-ubyte.gz"), gz.finish().unwrap()).unwrap();
    fs::write(folder.join("train-labels-idx1-ubyte"), idx(&[5], &[0, 1, 2, 1, 0])).unwrap();
    fs::write(folder.join("t10k-images.idx3-ubyte"), idx(&[1, 3, 2], &[9; 6])).unwrap();
    fs::write(folder.join("t10k-labels.idx1-ubyte"), idx(&[1], &[2])).unwrap();
    let data = ImageData::open(&folder, SPLIT).unwrap();
    assert_eq!((data.train.len(), data.validation.unwrap().len()), (5, 1));
    assert_eq!(*data.train.classes, ["0", "1", "2"]);
    let second = data.train.pictures.load(1, PIXELS).unwrap();
    assert_eq!((second.width, second.height, second.at(1, 2)), (2, 3, [11; 3]));
    assert!(data.train.pictures.name(5).contains("picture 0 of"));
    fs::write(folder.join("train-labels-idx1-ubyte"), idx(&[4], &[0, 1, 2, 1])).unwrap();
    let error = ImageData::open(&folder, SPLIT).err().unwrap().to_string();
    assert!(error.contains("4 labels for 5 pictures"), "{error}");
    fs::write(folder.join("train-images-idx3-ubyte.gz"), [31, 139, 8, 0, 0]).unwrap();
    let error = ImageData::open(&folder, SPLIT).err().unwrap().to_string();
    assert!(error.contains("is damaged"), "{error}");
}

#[test]
fn cifar_is_read() {
    let record = |labels: &[u8], red: u8| [labels, &[red; 1024], &[2; 1024], &[3; 1024]].concat();
    let ten = scratch("images_cifar10");
    fs::write(ten.join("data_batch_1.bin"), [record(&[3], 7), record(&[9], 8)].concat()).unwrap();
    fs::write(ten.join("test_batch.bin"), record(&[1], 9)).unwrap();
    fs::write(ten.join("batches.meta.txt"), "a\nb\nc\nd\ne\nf\ng\nh\ni\nj\n").unwrap();
    let data = ImageData::open(&ten, SPLIT).unwrap();
    assert_eq!((data.train.len(), data.validation.unwrap().len()), (2, 1));
    assert_eq!((data.train.classes.len(), data.train.classes[3].as_str()), (10, "d"));
    assert_eq!(data.train.pictures.load(1, PIXELS).unwrap().at(31, 0), [8, 2, 3]);
    let hundred = scratch("images_cifar100");
    fs::write(hundred.join("train.bin"), record(&[3, 77], 7)).unwrap();
    let all = ImageSplit { validation: 0.0, seed: 0 };
    let data = ImageData::open(&hundred, all).unwrap();
    assert_eq!((data.train.classes.len(), data.train.examples[0].label), (100, 77));
    fs::write(hundred.join("train.bin"), [0; 100]).unwrap();
    let error = ImageData::open(&hundred, all).err().unwrap().to_string();
    assert!(error.contains("has 100 bytes"), "{error}");
}

#[test]
fn captions_are_read_from_both_kinds_of_files() {
    let folder = scratch("images_captions");
    for name in ["a.png", "b.png", "c.png", "d.png"] {
        fs::write(folder.join(name), picture([1, 2, 3]).to_png().unwrap()).unwrap();
    }
    fs::write(folder.join("a.txt"), "a red circle\n\na round thing\n").unwrap();
    let lines = "{\"file_name\": \"b.png\", \"text\": \"blue\"}\n\n\
                 {\"image\": \"c.png\", \"captions\": [\"x\", \"y\"]}\n";
    fs::write(folder.join("captions.jsonl"), lines).unwrap();
    let data = ImageData::open(&folder, ImageSplit { validation: 0.0, seed: 0 }).unwrap();
    let captions: Vec<Vec<String>> = data.train.captions.to_vec();
    assert_eq!(captions, [vec!["a red circle", "a round thing"], vec!["blue"], vec!["x", "y"]]);
    assert!(data.notes[0].contains("`d.png`"), "{:?}", data.notes);
    assert!(data.train.classes.is_empty());
    let split = ImageData::open(&folder, ImageSplit { validation: 0.3, seed: 0 }).unwrap();
    assert_eq!((split.train.len(), split.validation.unwrap().len()), (2, 1));
    fs::write(folder.join("captions.jsonl"), "{\"text\": \"blue\"}\n").unwrap();
    let error = ImageData::open(&folder, SPLIT).err().unwrap().to_string();
    assert!(error.contains("line 1") && error.contains("file_name"), "{error}");
}

#[test]
fn grids_hold_all_pictures() {
    let pictures = [[1, 0, 0], [2, 0, 0], [3, 0, 0]].map(|colour| Picture::filled(2, 3, colour));
    let grid = Picture::grid(&pictures, 2).unwrap();
    assert_eq!((grid.width, grid.height), (5, 7));
    assert_eq!([grid.at(0, 0)[0], grid.at(3, 2)[0], grid.at(1, 5)[0]], [1, 2, 3]);
    assert_eq!((grid.at(2, 0), grid.at(4, 6)), ([255; 3], [255; 3]));
    assert!(Picture::grid(&[], 2).is_err());
}
