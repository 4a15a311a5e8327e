use super::*;
use crate::data::random::Philox;
use crate::data::testing::scratch;
use ferrata_ir::testing::fuzz;

const TEXT: &str = "fn main() {\n    println!(\"Grüße, Welt! 🦀\");\n}\n\n\n\tlet x = 12345;\r\n";

fn code(lines: usize) -> String {
    let words =
        ["let", "mut", "value", "=", "index", "+", "1;", "fn", "größe", "\n", "\n\n  ", "🦀"];
    let random = Philox::new(5, 0);
    (0..lines as u64).map(|i| format!("{} ", words[random.below(i, 12) as usize])).collect()
}

fn bpe() -> Tokenizer {
    Tokenizer::train_bpe(&[code(3000), TEXT.repeat(3)], 400).unwrap()
}

/// A tokenizer whose decoder looks at the beginning of the text, with bytes as a fallback.
fn metaspace() -> Tokenizer {
    let mut vocabulary = serde_json::Map::new();
    let bytes = (0..256).map(|b| format!("<0x{b:02X}>"));
    for token in ["<unk>", "</s>"].map(String::from).into_iter().chain(bytes) {
        vocabulary.insert(token, Value::from(vocabulary.len()));
    }
    for token in ["▁", "H", "e", "y", "▁H", "▁He"] {
        vocabulary.insert(token.into(), Value::from(vocabulary.len()));
    }
    let replace = json!({"type": "Replace", "pattern": {"String": "▁"}, "content": " "});
    let strip = json!({"type": "Strip", "content": " ", "start": 1, "stop": 0});
    let fallback = json!({"type": "ByteFallback"});
    let text = json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [{"id": 1, "content": "</s>", "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false, "special": true}],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "▁"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
        "pre_tokenizer": null, "post_processor": null,
        "decoder": {"type": "Sequence", "decoders": [replace, fallback, {"type": "Fuse"}, strip]},
        "model": {"type": "BPE", "dropout": null, "unk_token": "<unk>",
            "continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": true,
            "byte_fallback": true, "vocab": vocabulary, "merges": ["▁ H", "▁H e"]},
    });
    Tokenizer::from_json(text.to_string().as_bytes()).unwrap()
}

fn all() -> Vec<Tokenizer> {
    vec![Tokenizer::characters(&[TEXT]).unwrap(), Tokenizer::bytes(), bpe()]
}

#[test]
fn text_survives_and_so_do_saved_tokenizers() {
    for (number, tokenizer) in all().into_iter().enumerate() {
        let ids = tokenizer.encode(TEXT).unwrap();
        assert_eq!(tokenizer.decode(&ids).unwrap(), TEXT, "{}", tokenizer.name());
        assert!(ids.iter().all(|&id| (id as usize) < tokenizer.vocab_size()));
        let mut parts = Vec::new();
        let take = |number, part: &[u32]| {
            parts.extend(part.iter().map(|&id| (number, id)));
            Ok::<_, Error>(())
        };
        tokenizer.encode_each(&[TEXT, "", TEXT], take).unwrap();
        let twice = [0, 2].into_iter().flat_map(|n| ids.iter().map(move |&id| (n, id)));
        assert_eq!(parts, twice.collect::<Vec<_>>());
        let folder = scratch("tokenizer_save").join(number.to_string());
        fs::create_dir_all(&folder).unwrap();
        let path = tokenizer.save(&folder).unwrap();
        for source in [folder, path] {
            let again = Tokenizer::load(source).unwrap();
            assert_eq!(again.identity().unwrap(), tokenizer.identity().unwrap());
            assert_eq!(again.encode(TEXT).unwrap(), ids);
            assert_eq!(again.vocab_size(), tokenizer.vocab_size());
        }
    }
}

#[test]
fn characters_are_numbered_in_order() {
    let tokenizer = Tokenizer::characters(&["ba", "c\n"]).unwrap();
    assert_eq!(tokenizer.encode("abc\n").unwrap(), [1, 2, 3, 0]);
    assert_eq!(tokenizer.file().unwrap().1, "{\"chars\":[\"\\n\",\"a\",\"b\",\"c\"]}\n");
    let error = tokenizer.encode("aéb").unwrap_err().to_string();
    assert!(error.contains("'é' at byte 1") && error.contains("the 4 of"), "{error}");
    assert!(Tokenizer::characters(&[""]).is_err());
    let error = tokenizer.decode(&[1, 4]).unwrap_err().to_string();
    assert!(error.contains("token id 4") && error.contains("vocabulary of 4"), "{error}");
}

#[test]
fn reads_the_published_list_of_characters() {
    let text = "{\n \"chars\": [\"\\n\", \" \", \"!\"],\n \"note\": \"token id = index\"\n}";
    let tokenizer = Tokenizer::from_json(text.as_bytes()).unwrap();
    assert_eq!(tokenizer.encode("! \n").unwrap(), [2, 1, 0]);
}

#[test]
fn bpe_training_is_reproducible_and_compresses() {
    let (a, b) = (bpe(), bpe());
    assert_eq!(a.file().unwrap(), b.file().unwrap());
    assert!(a.vocab_size() > 257 && a.vocab_size() <= 400);
    assert_eq!(a.end_of_text(), Some(0));
    let text = code(500);
    let ids = a.encode(&text).unwrap();
    assert!(ids.len() * 2 < text.len(), "{} ids for {} bytes", ids.len(), text.len());
    // Any text can be encoded, seen or not.
    let unseen = "日本語 \u{0} \u{7f} ½";
    assert_eq!(a.decode(&a.encode(unseen).unwrap()).unwrap(), unseen);
    let error = Tokenizer::train_bpe(&["abc"], 256).err().unwrap().to_string();
    assert!(error.contains("at least 257"), "{error}");
    assert!(Tokenizer::train_bpe(&[""], 300).is_err());
}

#[test]
fn long_texts_have_the_ids_of_the_whole() {
    let tokenizer = bpe();
    let text = code(60_000);
    assert!(text.len() > 200_000);
    let Kind::HuggingFace(inner) = &tokenizer.kind else { panic!("not from Hugging Face") };
    assert_eq!(tokenizer.encode(&text).unwrap(), inner.encode_prompt(&text).unwrap());
    assert_eq!(tokenizer.decode(&tokenizer.encode(&text).unwrap()).unwrap(), text);
}

#[test]
fn special_tokens_are_not_shown() {
    let tokenizer = bpe();
    let mut ids = tokenizer.encode("let x").unwrap();
    ids.insert(1, 0);
    let text = tokenizer.decode(&ids).unwrap();
    let Kind::HuggingFace(inner) = &tokenizer.kind else { panic!("not from Hugging Face") };
    assert_eq!(text, inner.decode(&ids).unwrap());
    assert!(!text.contains("endoftext"));
}

#[test]
fn streams_give_the_text_of_the_whole() {
    let random = Philox::new(11, 0);
    for tokenizer in all().into_iter().chain([metaspace()]) {
        let sample = if tokenizer.has_bytes() { TEXT } else { "Hey é 🦀 He" };
        let mut cases = vec![tokenizer.encode(sample).unwrap()];
        for case in 0..200 {
            // Random ids: mostly broken characters.
            let ids =
                (0..20).map(|i| random.below(case * 100 + i, tokenizer.vocab_size() as u64) as u32);
            cases.push(ids.collect());
        }
        for (number, ids) in cases.into_iter().enumerate() {
            let mut stream = tokenizer.stream();
            let mut text = String::new();
            for &id in &ids {
                text += &stream.push(id).unwrap();
            }
            text += &stream.finish().unwrap();
            // Where tokens are no bytes, broken characters may be shown differently.
            if tokenizer.has_bytes() || number == 0 {
                assert_eq!(text, tokenizer.decode(&ids).unwrap(), "{}", tokenizer.name());
            }
        }
    }
}

#[test]
fn streams_see_what_stands_before() {
    let tokenizer = metaspace();
    let random = Philox::new(12, 0);
    // Special tokens, single spaces and words, in any order.
    let choices = [1, 1, 258, 258, 259, 261, 262, 263];
    for case in 0..300 {
        let ids: Vec<u32> =
            (0..12).map(|i| choices[random.below(case * 100 + i, 8) as usize]).collect();
        let mut stream = tokenizer.stream();
        let mut text: String = ids.iter().map(|&id| stream.push(id).unwrap()).collect();
        text += &stream.finish().unwrap();
        assert_eq!(text, tokenizer.decode(&ids).unwrap(), "{ids:?}");
    }
}

#[test]
fn a_stream_holds_back_half_characters() {
    let tokenizer = metaspace();
    let ids = tokenizer.encode("Hey 🦀").unwrap();
    let mut stream = tokenizer.stream();
    let parts: Vec<String> = ids.iter().map(|&id| stream.push(id).unwrap()).collect();
    assert_eq!(parts.iter().filter(|part| part.contains('\u{fffd}')).count(), 0, "{parts:?}");
    assert_eq!(parts.concat(), "Hey 🦀");
    assert!(tokenizer.stream().push(100_000).is_err());
}

#[test]
fn wrong_files_are_named() {
    let folder = scratch("tokenizer_wrong");
    let error = Tokenizer::load(&folder).err().unwrap().to_string();
    assert!(error.contains("no tokenizer.json and no vocab.json"), "{error}");
    for (content, expected) in [
        ("{\"chars\": [\"a\", \"a\"]}", "'a' occurs twice"),
        ("{\"chars\": [\"a\", \"bc\"]}", "entry 1 of `chars`"),
        ("{\"chars\": [\"\"]}", "entry 0"),
        ("{\"chars\": {}}", "not a list"),
        ("{\"hello\": 0, \"world\": 1}", "neither a tokenizer.json nor"),
        ("{\"model\": 5}", "not a tokenizer that can be read"),
        ("{", "not valid JSON"),
    ] {
        let path = folder.join("vocab.json");
        fs::write(&path, content).unwrap();
        let error = Tokenizer::load(&path).err().unwrap().to_string();
        assert!(error.contains(expected) && error.contains("vocab.json"), "{error}");
        assert!(!error.contains('\n'), "{error}");
    }
}

#[test]
fn mutated_files_never_panic() {
    let parse = |bytes: &[u8]| {
        let tokenizer = Tokenizer::from_json(bytes).map_err(Error::Tokenizer)?;
        let ids = tokenizer.encode("a b").unwrap_or_default();
        tokenizer.decode(&ids).map(drop)
    };
    fuzz(
        b"{\"chars\": [\"\\n\", \" \", \"a\", \"b\", \"\\u00e9\", \"\xf0\x9f\xa6\x80\"]}",
        20_000,
        parse,
    );
    let small = Tokenizer::train_bpe(&["let x = 1; let x = 2;"], 262).unwrap();
    fuzz(small.file().unwrap().1.as_bytes(), 500, parse);
}

#[test]
fn long_texts_are_encoded_in_parts() {
    // The cut falls into a character of two bytes.
    let text = format!("a{}", "\u{e9}".repeat(GROUP));
    let tokenizer = Tokenizer::characters(&[&text]).unwrap();
    let ids = tokenizer.encode(&text).unwrap();
    assert!(ids[0] == 0 && ids[1..].iter().all(|&id| id == 1) && ids.len() == GROUP + 1);
    let error = tokenizer.encode(&format!("{text}x")).unwrap_err().to_string();
    assert!(error.contains(&format!("'x' at byte {}", 2 * GROUP + 1)), "{error}");
    let ids = Tokenizer::bytes().encode(&text).unwrap();
    assert!(ids.iter().zip(text.bytes()).all(|(&id, byte)| id == u32::from(byte)));
}
