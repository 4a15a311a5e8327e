//! A tiny GPT learns a rhyme by heart and recites it.

use ferrata::data::Tokenizer;
use ferrata::models::{GenerateOptions, Model, ModelConfig};
use ferrata::nn::Context;
use ferrata::optim::{Adam, Optimizer, Schedule, clip_by_norm};
use ferrata::{Key, Tensor, compile, value_and_grad};
use std::path::Path;

const RHYME: &str = "twinkle twinkle little star how i wonder what you are ";
const CONFIG: &str = r#"{"model_type": "gpt2", "vocab_size": 16, "n_positions": 48, "n_embd": 32,
    "n_layer": 1, "n_head": 4, "embd_pdrop": 0, "attn_pdrop": 0, "resid_pdrop": 0}"#;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let tokenizer = Tokenizer::characters(&[RHYME])?;
    let config = ModelConfig::from_json(CONFIG.as_bytes(), Path::new("config.json"))?;
    assert_eq!(tokenizer.vocab_size(), config.vocab_size());

    // The rhyme over and over; each target is the character that comes after.
    let ids: Vec<i64> = tokenizer.encode(&RHYME.repeat(2))?.into_iter().map(i64::from).collect();
    let windows = |shift: usize| {
        let rows: Vec<Vec<i64>> =
            (0..5).map(|row| ids[row * 11 + shift..][..config.context()].to_vec()).collect();
        Tensor::from(rows)
    };

    let optimizer = Optimizer::new(Adam { decoupled: true, ..Adam::default() }).weight_decay(0.01);
    let schedule = Schedule::constant(1e-2);
    let mut model = Model::new(&config, &Key::new(1))?;
    let mut state = optimizer.init(&model);
    let step = compile(|(model, state, ids, targets, rates)| {
        let loss = |model: &Model| model.loss(&ids, &targets, &mut Context::train(Key::new(0)));
        let (loss, gradient) = value_and_grad(loss)(&model);
        let (gradient, _norm) = clip_by_norm(&gradient, 1.0);
        let (model, state) = optimizer.update(&model, &gradient, &state, &rates);
        (model, state, loss)
    });
    for i in 0..80 {
        let rates = optimizer.rates(i, schedule.at(i));
        let loss: Tensor;
        (model, state, loss) = step.call((model, state, windows(0), windows(1), rates))?;
        if i % 20 == 0 {
            println!("step {i}: loss {:.3}", loss.item::<f32>()?);
        }
    }

    let options = GenerateOptions { max_new: 24, temperature: 0.0, ..GenerateOptions::default() };
    let generation = model.generate(&tokenizer.encode("twinkle t")?, &options)?;
    let new = generation.collect::<Result<Vec<u32>, _>>()?;
    let text = tokenizer.decode(&new)?;
    println!("twinkle t|{text}");
    assert_eq!(text, "winkle little star how i");
    Ok(())
}

#[test]
fn runs() -> Result<(), Box<dyn std::error::Error>> {
    main()
}
