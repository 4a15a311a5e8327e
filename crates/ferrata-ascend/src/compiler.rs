//! The vendor's open compiler, which is run as a program. What it has compiled is kept by content.

use crate::target::Target;
use ferrata_ir::{Error, Result};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use std::{env, fs, io};

/// Where the compiler is looked for first: its path, or that of its folder.
pub const VARIABLE: &str = "FERRATA_ASCEND_COMPILER";
const TOOL: &str = "bishengir-compile";
/// The one for the generation of the 950.
const TOOL_A5: &str = "bishengir-compile-a5";
/// What the compiler leaves for its last step.
const MODULE: &str = "module.hivm.opt.mlir";

/// The compiler and what it has compiled.
#[derive(Debug)]
pub struct Compiler {
    /// Where its tools are; without them only what is kept is known.
    tools: Option<PathBuf>,
    cache: Option<PathBuf>,
    known: Mutex<HashMap<String, Arc<str>>>,
    statistics: Mutex<Statistics>,
}

/// What compiling has cost so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Runs of the compiler.
    pub compiled: usize,
    /// Programs that were known already.
    pub hits: usize,
    /// Time in the compiler.
    pub time: Duration,
}

/// Why a program was not compiled.
#[derive(Debug)]
pub struct Refusal {
    /// Whether its tiles are too large for the buffers.
    pub too_large: bool,
    /// What the compiler said.
    pub error: Error,
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Refusal {
        Refusal { too_large: false, error }
    }
}

impl Compiler {
    /// The compiler that the environment names, or that is on the path, or CANN's. Programs are
    /// kept in the user's cache folder, if there is one.
    ///
    /// # Errors
    /// When there is none; says where it was looked for.
    pub fn find() -> Result<Compiler> {
        let set = |name: &str| env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        let mut places: Vec<PathBuf> = set(VARIABLE).into_iter().collect();
        let path = env::var_os("PATH").unwrap_or_default();
        places.extend(env::split_paths(&path));
        let homes =
            [set("ASCEND_HOME_PATH"), Some("/usr/local/Ascend/ascend-toolkit/latest".into())];
        places.extend(homes.into_iter().flatten().map(|h| h.join("tools/bishengir/bin")));
        let folder = places.into_iter().find_map(|place| {
            let folder = if place.is_file() { place.parent()?.to_owned() } else { place };
            folder.join(TOOL).is_file().then_some(folder)
        });
        let folder = folder.ok_or_else(|| {
            Error::new("there is no bishengir-compile").help(format!(
                "it comes with CANN, or with the Python package ascendnpu-ir; set {VARIABLE} to its path"
            ))
        })?;
        let user = set("XDG_CACHE_HOME").or_else(|| Some(set("HOME")?.join(".cache")));
        // Another compiler makes other programs.
        let size = fs::metadata(folder.join(TOOL)).map_or(0, |m| m.len());
        let which = hash(&[&folder.to_string_lossy(), &size.to_string()]);
        let cache = user.map(|user| user.join("ferrata/ascend").join(which));
        Ok(Compiler::new(folder, cache))
    }

    /// The compiler in a folder, which keeps programs in another one.
    pub fn new(folder: impl Into<PathBuf>, cache: Option<PathBuf>) -> Compiler {
        let (known, statistics) = (Mutex::default(), Mutex::default());
        Compiler { tools: Some(folder.into()), cache, known, statistics }
    }

    /// What a compiler has kept in a folder, and nothing else.
    pub fn kept(folder: impl Into<PathBuf>) -> Compiler {
        Compiler { tools: None, ..Compiler::new("", Some(folder.into())) }
    }

    /// The same compiler, keeping programs in this folder.
    pub fn keeping(self, folder: impl Into<PathBuf>) -> Compiler {
        Compiler { cache: Some(folder.into()), ..self }
    }

    /// What compiling has cost so far.
    pub fn statistics(&self) -> Statistics {
        *self.statistics.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the compiler makes of a program for a chip: the text that its last step would get.
    ///
    /// # Errors
    /// What the compiler refuses, with its words.
    pub fn compile(&self, source: &str, target: &Target) -> Result<Arc<str>, Refusal> {
        let key = hash(&[source, target.name]);
        let count = |f: &dyn Fn(&mut Statistics)| {
            f(&mut self.statistics.lock().unwrap_or_else(PoisonError::into_inner));
        };
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        let kept = self.cache.as_ref().map(|folder| folder.join(format!("{key}.mlir")));
        let read = || fs::read_to_string(kept.as_ref()?).ok().map(Arc::from);
        if let Some(found) = known.or_else(read) {
            count(&|s| s.hits += 1);
            self.known
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .insert(key, Arc::clone(&found));
            return Ok(found);
        }
        let Some(tools) = &self.tools else {
            return Err(Error::new("a kernel is not among those that are kept").into());
        };
        let tool = tools.join(if target.a5 { TOOL_A5 } else { TOOL });
        let start = Instant::now();
        let done = run(&tool, source, target, &key);
        count(&|s| {
            s.compiled += 1;
            s.time += start.elapsed();
        });
        let module: Arc<str> = done?.into();
        if let Some(kept) = &kept {
            // Without a cache every process compiles anew; that is no error.
            let _ = keep(kept, &module);
        }
        self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(key, Arc::clone(&module));
        Ok(module)
    }
}

/// Of some texts, each with its length.
fn hash(parts: &[&str]) -> String {
    let mut hash = blake3::Hasher::new();
    for part in parts {
        hash.update(&(part.len() as u64).to_le_bytes());
        hash.update(part.as_bytes());
    }
    hash.finalize().to_hex()[..16].to_owned()
}

/// Runs the compiler in a folder of its own.
fn run(tool: &Path, source: &str, target: &Target, key: &str) -> Result<String, Refusal> {
    static RUNS: AtomicUsize = AtomicUsize::new(0);
    let run = RUNS.fetch_add(1, Ordering::Relaxed);
    let folder = env::temp_dir().join(format!("ferrata-ascend-{}-{run}-{key}", std::process::id()));
    let failed = |e: io::Error| {
        Error::new(format!("cannot run {}: {e}", tool.display())).help("check the path")
    };
    fs::create_dir_all(&folder).map_err(failed)?;
    let input = folder.join("kernel.mlir");
    let output = fs::write(&input, source).and_then(|()| {
        Command::new(tool)
            .arg(&input)
            .arg(format!("--target={}", target.name))
            .args(["--enable-hfusion-compile=true", "--enable-hivm-compile=true"])
            .args(["--enable-triton-kernel-compile=true", "--enable-auto-multi-buffer=true"])
            .arg(format!("--save-temps={}", folder.display()))
            .arg("-o")
            .arg(folder.join("kernel"))
            .output()
    });
    let module = fs::read_to_string(folder.join(MODULE));
    let removed = fs::remove_dir_all(&folder);
    let output = output.map_err(failed)?;
    removed.map_err(failed)?;
    module.map_err(|_| {
        let said = String::from_utf8_lossy(&output.stderr);
        let lines: Vec<&str> = said.lines().filter(|l| l.contains("error: ")).take(4).collect();
        let why = if lines.is_empty() { said.trim().to_owned() } else { lines.join("\n") };
        let too_large = said.contains("overflow");
        Refusal {
            too_large,
            error: Error::new(format!("bishengir-compile refuses a kernel: {why}")),
        }
    })
}

/// Writes a file so that no reader finds half of it.
fn keep(path: &Path, text: &str) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let new = path.with_extension(format!("{}", std::process::id()));
    fs::write(&new, text)?;
    fs::rename(&new, path)
}
