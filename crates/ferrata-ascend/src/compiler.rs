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
/// The closed one that makes binaries.
const LAST_STEP: &str = "hivmc";
/// What the compiler leaves for it.
const MODULE: &str = "module.hivm.opt.mlir";
/// What its last step, `hivmc`, may call the binary.
const BINARIES: [&str; 3] = ["kernel", "kernel.o", "kernel_reloc.o"];

/// The compiler and what it has compiled.
#[derive(Debug)]
pub struct Compiler {
    /// Where its tools are; without them only what is kept is known.
    tools: Option<PathBuf>,
    cache: Option<PathBuf>,
    known: Mutex<HashMap<String, Compiled>>,
    statistics: Mutex<Statistics>,
}

/// What the compiler makes of a program.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// What its last step gets.
    pub text: Arc<str>,
    /// What its last step makes of that, where it is installed.
    pub binary: Option<Arc<[u8]>>,
}

/// What a device needs of a compiled program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// The text alone.
    Text,
    /// The binary, too.
    Binary,
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
        let compiler = Compiler::new(folder.clone(), None);
        // Another compiler makes other programs, and another last step other binaries.
        let tools = [Some(folder.join(TOOL)), compiler.last_step().ok()];
        let [tool, last] = tools.map(|tool| {
            let size = tool.and_then(|tool| fs::metadata(tool).ok()).map_or(0, |m| m.len());
            size.to_string()
        });
        let which = hash(&[&folder.to_string_lossy(), &tool, &last]);
        let cache = user.map(|user| user.join("ferrata/ascend").join(which));
        Ok(Compiler { cache, ..compiler })
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

    /// The folder of the compiler's tools, unless it only knows what is kept.
    pub fn tools(&self) -> Option<&Path> {
        self.tools.as_deref()
    }

    /// Where the compiler's last step is, which makes binaries.
    ///
    /// # Errors
    /// When it is not installed: it is closed, and comes with CANN only.
    pub fn last_step(&self) -> Result<PathBuf> {
        let path = env::var_os("PATH").unwrap_or_default();
        let mut places = self.tools.iter().cloned().chain(env::split_paths(&path));
        let found = places.find_map(|folder| Some(folder.join(LAST_STEP)).filter(|p| p.is_file()));
        found.ok_or_else(|| {
            Error::new("bishengir-compile makes no binary: it lacks its last step, hivmc")
                .help("use the compiler that comes with CANN")
        })
    }

    /// What compiling has cost so far.
    pub fn statistics(&self) -> Statistics {
        *self.statistics.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the compiler makes of a program for a chip.
    ///
    /// # Errors
    /// What the compiler refuses, with its words; that there is no binary, if one is needed.
    pub fn compile(
        &self,
        source: &str,
        target: &Target,
        needs: Needs,
    ) -> Result<Compiled, Refusal> {
        let key = hash(&[source, target.name]);
        let count = |f: &dyn Fn(&mut Statistics)| {
            f(&mut self.statistics.lock().unwrap_or_else(PoisonError::into_inner));
        };
        let known = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = self.cache.as_ref().map(|folder| folder.join(format!("{key}.mlir")));
        let read = || {
            let kept = kept.as_ref()?;
            let text = fs::read_to_string(kept).ok()?.into();
            Some(Compiled {
                text,
                binary: fs::read(kept.with_extension(BINARY)).ok().map(Arc::from),
            })
        };
        let enough = |c: &Compiled| needs == Needs::Text || c.binary.is_some();
        let found = known().get(&key).cloned();
        if let Some(found) = found.filter(enough).or_else(|| read().filter(enough)) {
            count(&|s| s.hits += 1);
            known().insert(key, found.clone());
            return Ok(found);
        }
        let Some(tools) = &self.tools else {
            return Err(Error::new("a kernel is not among those that are kept").into());
        };
        if needs == Needs::Binary {
            self.last_step()?;
        }
        let start = Instant::now();
        let done = run(tools, source, target, &key);
        count(&|s| {
            s.compiled += 1;
            s.time += start.elapsed();
        });
        let compiled = done?;
        if let Some(kept) = &kept {
            // Without a cache every process compiles anew; that is no error.
            let _ = keep(kept, compiled.text.as_bytes());
            let binary = kept.with_extension(BINARY);
            let _ = compiled.binary.as_ref().map(|bytes| keep(&binary, bytes));
        }
        known().insert(key, compiled.clone());
        match enough(&compiled) {
            true => Ok(compiled),
            false => Err(Error::new("bishengir-compile makes no binary of a kernel").into()),
        }
    }
}

/// How the file that keeps a binary ends.
const BINARY: &str = "o";

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
fn run(tools: &Path, source: &str, target: &Target, key: &str) -> Result<Compiled, Refusal> {
    static RUNS: AtomicUsize = AtomicUsize::new(0);
    let run = RUNS.fetch_add(1, Ordering::Relaxed);
    let folder = env::temp_dir().join(format!("ferrata-ascend-{}-{run}-{key}", std::process::id()));
    let tool = tools.join(if target.a5 { TOOL_A5 } else { TOOL });
    let failed = |e: io::Error| {
        Error::new(format!("cannot run {}: {e}", tool.display())).help("check the path")
    };
    fs::create_dir_all(&folder).map_err(failed)?;
    let input = folder.join("kernel.mlir");
    // Its last step may lie beside it.
    let path = env::var_os("PATH").unwrap_or_default();
    let path = env::join_paths([tools.to_owned()].into_iter().chain(env::split_paths(&path)));
    let output = fs::write(&input, source).and_then(|()| {
        Command::new(&tool)
            .arg(&input)
            .arg(format!("--target={}", target.name))
            .args(["--enable-hfusion-compile=true", "--enable-hivm-compile=true"])
            .args(["--enable-triton-kernel-compile=true", "--enable-auto-multi-buffer=true"])
            .arg(format!("--save-temps={}", folder.display()))
            .arg("-o")
            .arg(folder.join(BINARIES[0]))
            .env("PATH", path.map_err(io::Error::other)?)
            .output()
    });
    let module = fs::read_to_string(folder.join(MODULE));
    let binary = BINARIES.iter().find_map(|name| fs::read(folder.join(name)).ok());
    let removed = fs::remove_dir_all(&folder);
    let output = output.map_err(failed)?;
    removed.map_err(failed)?;
    match module {
        Ok(text) => Ok(Compiled { text: text.into(), binary: binary.map(Arc::from) }),
        Err(_) => {
            let said = String::from_utf8_lossy(&output.stderr);
            let lines: Vec<&str> = said.lines().filter(|l| l.contains("error: ")).take(4).collect();
            let why = if lines.is_empty() { said.trim().to_owned() } else { lines.join("\n") };
            let too_large = said.contains("overflow");
            let error = Error::new(format!("bishengir-compile refuses a kernel: {why}"));
            Err(Refusal { too_large, error })
        }
    }
}

/// Writes a file so that no reader finds half of it.
fn keep(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut new = path.as_os_str().to_owned();
    new.push(format!(".{}", std::process::id()));
    fs::write(&new, bytes)?;
    fs::rename(&new, path)
}
