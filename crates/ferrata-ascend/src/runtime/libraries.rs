//! Finds and opens the vendor's libraries. They stay open until the process ends: they start threads
//! and keep state that does not survive being unloaded.

use super::functions::{Declaration, Functions, Library};
use ferrata_ir::{Error, Result};
use std::ffi::{OsString, c_void};
use std::path::{Path, PathBuf};
use std::{env, fs};

/// The one folder that libraries are taken from, if it is set.
pub const VARIABLE: &str = "FERRATA_ASCEND_LIBRARIES";

/// Where libraries are looked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Search {
    /// Folders with the libraries.
    folders: Vec<PathBuf>,
    /// Operators that the user has installed beside the vendor's, which come before those.
    custom: Vec<PathBuf>,
    /// Whether the system's loader is asked, too.
    system: bool,
}

impl Search {
    /// Where this process's environment says.
    pub fn environment() -> Search {
        Search::by(&|name| env::var_os(name))
    }

    /// One folder and nothing else.
    pub fn folder(folder: impl Into<PathBuf>) -> Search {
        Search { folders: vec![folder.into()], ..Search::default() }
    }

    /// Where an environment says.
    pub fn by(variable: &dyn Fn(&str) -> Option<OsString>) -> Search {
        let set = |name: &str| variable(name).filter(|v| !v.is_empty());
        if let Some(folder) = set(VARIABLE) {
            return Search::folder(folder);
        }
        let homes = ["ASCEND_HOME_PATH", "ASCEND_TOOLKIT_HOME"].into_iter().filter_map(set);
        let homes = homes.map(PathBuf::from);
        let usual = ["/usr/local/Ascend/ascend-toolkit/latest", "/usr/local/Ascend/cann"];
        let mut folders: Vec<PathBuf> = homes.chain(usual.map(PathBuf::from)).collect();
        folders.iter_mut().for_each(|home| home.push("lib64"));
        folders.dedup();
        let custom = set("ASCEND_CUSTOM_OPP_PATH");
        let mut custom: Vec<PathBuf> =
            custom.iter().flat_map(env::split_paths).map(|p| p.join("op_api/lib")).collect();
        let vendors = set("ASCEND_OPP_PATH").map(|opp| PathBuf::from(opp).join("vendors"));
        custom.extend(vendors.iter().flat_map(|vendors| {
            let listed = fs::read_to_string(vendors.join("config.ini")).unwrap_or_default();
            priority(&listed).map(|name| vendors.join(name).join("op_api/lib")).collect::<Vec<_>>()
        }));
        Search { folders, custom, system: true }
    }

    /// Whether the runtime is in one of the folders.
    pub fn is_installed(&self) -> bool {
        self.candidates(Library::AscendCl).iter().any(|path| path.is_file())
    }

    /// The files that a library may be, the best first.
    fn candidates(&self, library: Library) -> Vec<PathBuf> {
        let file = format!("lib{}.so", library.name());
        let mut found = Vec::new();
        if library == Library::OpApi {
            found.extend(self.custom.iter().map(|folder| folder.join("libcust_opapi.so")));
            // Newer releases split it by kinds of operators.
            found.extend(self.folders.iter().flat_map(|folder| parts(folder, "libopapi_")));
        }
        found.extend(self.folders.iter().map(|folder| folder.join(&file)));
        found.retain(|path| path.is_file());
        if self.system {
            found.push(file.into());
        }
        found
    }

    fn places(&self) -> String {
        let mut places: Vec<String> =
            self.folders.iter().map(|p| p.display().to_string()).collect();
        places.extend(self.system.then(|| "the system's loader".to_owned()));
        places.join(", ")
    }
}

/// Vendors of operators by priority, as `config.ini` lists them.
fn priority(listed: &str) -> impl Iterator<Item = &str> {
    let names = listed.lines().find_map(|line| line.trim().strip_prefix("load_priority="));
    names.into_iter().flat_map(|names| names.split(',')).map(str::trim).filter(|n| !n.is_empty())
}

/// Libraries in a folder whose names begin so, by name.
fn parts(folder: &Path, prefix: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = entries
        .filter(|e| {
            let name = e.file_name();
            let name = name.to_string_lossy();
            name.starts_with(prefix) && name.ends_with(".so")
        })
        .map(|e| e.path())
        .collect();
    found.sort();
    found
}

/// A library that was opened.
struct Opened {
    library: Library,
    path: PathBuf,
    handle: &'static libloading::Library,
}

/// The vendor's libraries, opened.
pub(crate) struct Libraries {
    opened: Vec<Opened>,
    /// Those that were not found, and why.
    pub absent: Vec<(Library, String)>,
    /// Functions that were not found.
    pub missing: Vec<&'static Declaration>,
    pub functions: Functions,
}

impl Libraries {
    /// Opens what can be found.
    ///
    /// # Errors
    /// When nothing works without what is missing; names it and where it was looked for.
    pub fn open(search: &Search) -> Result<Libraries> {
        let (mut opened, mut absent) = (Vec::new(), Vec::new());
        for library in Library::ALL {
            let mut why = format!("not in {}", search.places());
            let before = opened.len();
            for path in search.candidates(library) {
                // SAFETY: running the initialisers of the vendor's libraries is what opening means.
                match unsafe { libloading::Library::new(&path) } {
                    // Never unloaded: see above.
                    Ok(handle) => {
                        let handle = Box::leak(Box::new(handle));
                        opened.push(Opened { library, path, handle });
                    }
                    Err(error) => why = error.to_string(),
                }
                // Operators may come from several files, everything else is in one.
                if library != Library::OpApi && opened.len() > before {
                    break;
                }
            }
            if opened.len() == before {
                absent.push((library, why));
            }
        }
        if let Some((library, why)) = absent.iter().find(|(l, _)| *l == Library::AscendCl) {
            return Err(Error::new(format!("{library} cannot be opened: {why}")).help(format!(
                "install CANN and source its set_env.sh, or set {VARIABLE} to the folder of its \
                 libraries"
            )));
        }
        let find = |declaration: &'static Declaration| {
            address(&opened, Some(declaration.library), declaration.name)
        };
        // SAFETY: the names are those of functions of the declared types: `scripts/test-ascend`
        // compares them with the vendor's headers where these declare them.
        let (functions, missing) = unsafe { Functions::find(&find) }.map_err(|missing| {
            let needed = missing.iter().filter(|d| d.lost.is_none());
            let names: Vec<&str> = needed.map(|d| d.name).collect();
            let path = opened.first().map(|o| o.path.display().to_string()).unwrap_or_default();
            Error::new(format!("{path} lacks {}", names.join(", ")))
                .help("install CANN 8.0 or newer, and source its set_env.sh")
        })?;
        Ok(Libraries { opened, absent, missing, functions })
    }

    /// A function that is in any of the libraries of operators.
    pub fn operator(&self, name: &str) -> Option<*const c_void> {
        address(&self.opened, Some(Library::OpApi), name)
    }

    /// What was opened, and from where.
    pub fn opened(&self) -> impl Iterator<Item = (Library, &Path)> {
        self.opened.iter().map(|o| (o.library, o.path.as_path()))
    }
}

/// The address of a function: in its library, or where releases have moved it.
fn address(opened: &[Opened], first: Option<Library>, name: &str) -> Option<*const c_void> {
    let (own, others): (Vec<&Opened>, Vec<&Opened>) =
        opened.iter().partition(|o| Some(o.library) == first);
    own.into_iter().chain(others).find_map(|o| {
        // SAFETY: only the address is taken here; whoever calls it knows its type.
        let found = unsafe { o.handle.get::<*const c_void>(name.as_bytes()) };
        found.ok().map(|symbol| *symbol)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_follow_the_environment() {
        let root = env::temp_dir().join(format!("ferrata-search-{}", std::process::id()));
        let opp = root.join("opp");
        let lib = root.join("home/lib64");
        for folder in [opp.join("vendors/b/op_api/lib"), root.join("own/op_api/lib"), lib.clone()] {
            fs::create_dir_all(folder).unwrap();
        }
        fs::write(opp.join("vendors/config.ini"), "# x\nload_priority=b, a\n").unwrap();
        let files = [
            root.join("own/op_api/lib/libcust_opapi.so"),
            opp.join("vendors/b/op_api/lib/libcust_opapi.so"),
            lib.join("libopapi_math.so"),
            lib.join("libopapi_nn.so"),
            lib.join("libopapi.so"),
        ];
        files.iter().for_each(|file| fs::write(file, "").unwrap());
        let variable = |name: &str| match name {
            "ASCEND_HOME_PATH" => Some(root.join("home").into_os_string()),
            "ASCEND_OPP_PATH" => Some(opp.clone().into_os_string()),
            "ASCEND_CUSTOM_OPP_PATH" => Some(root.join("own").into_os_string()),
            _ => None,
        };
        let found = Search::by(&variable).candidates(Library::OpApi);
        assert_eq!(found[..5], files);
        // The loader comes last, with the name alone.
        assert_eq!(found[5..], [PathBuf::from("libopapi.so")]);
        let only = Search::by(&|name| (name == VARIABLE).then(|| lib.clone().into_os_string()));
        assert_eq!(only.candidates(Library::OpApi), files[2..]);
        fs::remove_dir_all(&root).unwrap();
    }

    #[test]
    fn without_libraries_the_error_says_what_to_do() {
        let error = Libraries::open(&Search::folder("/nowhere")).err().unwrap().to_string();
        assert!(error.contains("libascendcl"), "{error}");
        assert!(error.contains("/nowhere") && error.contains("set_env.sh"), "{error}");
    }
}
