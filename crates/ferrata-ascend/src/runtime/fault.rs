//! What the vendor's error codes mean, in our words.

/// What a code of the runtime or of an operator means, and what helps.
pub(crate) fn meaning(code: i32) -> Option<(&'static str, Option<&'static str>)> {
    let driver = Some("look whether `npu-smi info` lists the chip");
    Some(match code {
        100_000 | 107_000 => ("an argument is not valid", None),
        100_001 => ("the runtime was not started", None),
        100_002 => ("the runtime was started before", None),
        107_001 | 200_002 => ("there is no chip of this number", driver),
        107_002 => ("this thread has no chip", None),
        107_003 => ("the stream belongs to another chip", None),
        107_017 => ("a handle is not valid", None),
        107_019 | 107_020 => ("it took too long", None),
        200_000 => ("the host's memory is used up", None),
        200_001 | 200_006 | 207_000 => ("this release or chip cannot do that", None),
        207_001 | 207_018 => ("the chip's memory is used up", Some("make the batch smaller")),
        207_004 => ("there is no chip", driver),
        207_006 => {
            ("this user may not use the chip", Some("join the group of the driver, HwHiAiUser"))
        }
        207_007 => ("there are too many events", None),
        207_008 => ("there are too many streams", None),
        500_000 => ("an unknown error inside the runtime", None),
        507_008 => ("the binary is for another chip", Some("look at `ferrata devices`")),
        507_010 | 507_901 => ("the chip does not answer", driver),
        507_014 => ("a kernel of cube cores took too long", None),
        507_015 | 507_016 | 507_042 | 507_043 => {
            ("a kernel of cube cores did what it must not", None)
        }
        507_018 => ("a kernel of the chip's processor failed", None),
        507_027 => ("the binary has no kernel of this name", None),
        507_033 => ("the chip could not be set up", driver),
        507_034 => ("a kernel of vector cores took too long", None),
        507_035 | 507_036 | 507_044 | 507_045 => {
            ("a kernel of vector cores did what it must not", None)
        }
        507_046 | 507_047 => ("waiting took too long", None),
        507_053..=507_055 => ("the chip's memory is damaged", Some("have the chip looked at")),
        507_056 => ("a link between chips is broken", None),
        507_899 => ("an unknown error inside the driver", driver),
        161_001 => ("an operator was given a null pointer", None),
        161_002 => ("an operator does not take these types or shapes", None),
        361_001 => ("an operator could not use the runtime", None),
        561_002 => ("an operator found no tiling for these shapes", None),
        561_003 => {
            ("an operator's kernel is not installed", Some("install CANN's kernels for this chip"))
        }
        561_107 => ("ASCEND_OPP_PATH is not set", Some("source CANN's set_env.sh")),
        _ => return None,
    })
}
