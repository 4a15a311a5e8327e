use std::time::Duration;

use ferrata::bench::select;

#[test]
fn every_short_case_is_prepared_for_work_that_takes_time() {
    for case in select(&["64x64x64".to_owned()]).unwrap() {
        let measured = case.measure(Duration::from_millis(5)).unwrap();
        assert_eq!(measured.work.flops, 2.0 * 64f64.powi(3));
        assert!(measured.seconds > 0.0 && measured.samples >= 3, "{measured:?}");
        assert!(measured.of_limit.unwrap() > 0.0 && measured.spread >= 0.0, "{measured:?}");
    }
}

#[test]
fn the_work_of_steps_is_that_of_their_parameters() {
    // 10.8 M parameters on 2048 tokens: 140 GFLOP; 124 M on 512: 387 GFLOP.
    for (name, gigaflops) in [("gpt-10m-step-f32", 140.0), ("gpt2-124m-step-bf16", 385.0)] {
        let cases = select(&[name.to_owned()]).unwrap();
        let [case] = &cases[..] else { panic!("{name}") };
        let share = case.work.flops / 1e9 / gigaflops;
        assert!((0.99..1.01).contains(&share), "{name}: {}", case.work.flops);
    }
    assert!(select(&[]).unwrap().iter().all(|case| !case.long));
}
