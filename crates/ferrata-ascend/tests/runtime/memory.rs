//! Memory and copies.

use crate::on_chip;
use ferrata_ascend::runtime::Stream;
use ferrata_ascend_fake::Fake;

fn numbers(n: usize) -> Vec<u8> {
    (0..n).map(|i| (i * 7 + i / 256) as u8).collect()
}

#[test]
fn copies_of_any_size() {
    let fake = Fake::new().unwrap();
    on_chip(&fake, |chip| {
        // Less than a stage, exactly two, and more.
        for n in [0, 1, 4095, 8 << 20, (13 << 20) + 5] {
            let data = numbers(n);
            let block = chip.heap.allocate(n + 3, &chip.stream).unwrap();
            chip.stage.upload(&block, 3, &data).unwrap();
            let other = chip.heap.allocate(n + 3, &chip.stream).unwrap();
            other.clear().unwrap();
            other.copy(0, &block, 3, n).unwrap();
            assert!(chip.stage.download(&block, 3, n).unwrap() == data, "{n} bytes");
            let copied = chip.stage.download(&other, 0, n + 3).unwrap();
            assert!(copied[..n] == data && copied[n..] == [0; 3], "{n} bytes");
        }
    });
}

#[test]
fn copies_that_leave_a_block_are_errors() {
    let fake = Fake::new().unwrap();
    on_chip(&fake, |chip| {
        let block = chip.heap.allocate(100, &chip.stream).unwrap();
        let error = chip.stage.upload(&block, 1, &[0; 100]).unwrap_err().to_string();
        assert!(error.contains("leave 100 bytes"), "{error}");
        assert!(chip.stage.download(&block, 101, 0).is_err());
        assert!(block.copy(50, &block, 0, 51).is_err());
    });
}

#[test]
fn blocks_are_used_again_in_the_order_of_streams() {
    let fake = Fake::new().unwrap();
    on_chip(&fake, |chip| {
        let (heap, stream) = (&chip.heap, &chip.stream);
        let other = Stream::new(&chip.npu).unwrap();
        let at = |block: &ferrata_ascend::runtime::Block| block.address(0, 1).unwrap() as u64;
        for bytes in [1000, 3 << 20] {
            let first = heap.allocate(bytes, stream).unwrap();
            let place = at(&first);
            first.clear().unwrap();
            drop(first);
            let taken = heap.usage().taken;
            // The same stream gets it at once, another one waits for what the first has to do.
            let again = heap.allocate(bytes, stream).unwrap();
            assert_eq!(at(&again), place);
            drop(again);
            let waits = fake.calls("aclrtStreamWaitEvent");
            let elsewhere = heap.allocate(bytes, &other).unwrap();
            assert_eq!(at(&elsewhere), place);
            assert_eq!(fake.calls("aclrtStreamWaitEvent"), waits + 1);
            assert_eq!(heap.usage().taken, taken);
            assert!(heap.usage().used >= bytes);
        }
        assert_eq!(heap.usage().used, 0);
    });
}

#[test]
fn a_full_chip_gives_back_what_is_free_and_then_says_so() {
    let fake = Fake::new().unwrap();
    on_chip(&fake, |chip| {
        let total = chip.npu.memory().unwrap().1;
        let large = |n: usize| chip.heap.allocate(n, &chip.stream);
        let first = large(total / 8 * 5).unwrap();
        first.clear().unwrap();
        drop(first);
        // Of another size: there is only room once the first one is gone.
        let second = large(total / 4 * 3).unwrap();
        let error = large(total / 2).unwrap_err().to_string();
        for part in [(total / 2).to_string(), (total / 4 * 3).to_string(), "in use".to_owned()] {
            assert!(error.contains(&part), "{error}");
        }
        drop(second);
        chip.heap.trim().unwrap();
        assert_eq!(chip.npu.memory().unwrap().0, total);
    });
}

#[test]
fn many_threads() {
    let fake = Fake::new().unwrap();
    on_chip(&fake, |chip| {
        std::thread::scope(|threads| {
            for t in 0..4_u8 {
                threads.spawn(move || {
                    for i in 0..20 {
                        let n = 700 * (i + 1);
                        let block = chip.heap.allocate(n, &chip.stream).unwrap();
                        chip.stage.upload(&block, 0, &vec![t; n]).unwrap();
                        assert!(chip.stage.download(&block, 0, n).unwrap() == vec![t; n]);
                    }
                });
            }
        });
    });
}
