//! Every function, constant and struct that is declared here, against the vendor's headers, by a
//! compiler of C++. `scripts/test-ascend` fetches the headers; nothing of them is kept.

use ferrata_ascend::runtime::abi::{CONSTANTS, ENUMERATORS, LAYOUTS};
use ferrata_ascend::runtime::{DECLARATIONS, Declaration};
use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// Folders with headers, the newest release first.
const VARIABLE: &str = "FERRATA_ASCEND_HEADERS";

/// Which of these lines, each complete in itself, a compiler refuses behind the headers.
fn refused(headers: &Path, lines: &[String]) -> BTreeSet<usize> {
    let includes = ["cstddef", "acl/acl.h", "acl/acl_rt.h", "third_party/hccl/inc/hccl/hccl.h"];
    let mut text: String = includes.iter().map(|file| format!("#include <{file}>\n")).collect();
    text += &lines.join("\n");
    let mut compiler = Command::new("c++")
        .args(["-x", "c++", "-std=c++17", "-fsyntax-only", "-w", "-"])
        .arg("-I")
        .arg(headers)
        .arg("-I")
        .arg(headers.join("third_party/acl/inc"))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    compiler.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = compiler.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let errors = said.lines().filter(|line| line.contains("error: "));
    let number = |line: &str| -> usize {
        let number = line.strip_prefix("<stdin>:").and_then(|l| l.split(':').next());
        number.unwrap_or_else(|| panic!("{said}")).parse().unwrap()
    };
    errors.map(|line| number(line) - 1 - includes.len()).collect()
}

/// A declaration; C linkage does not allow two of one name.
fn declared(name: &str, result: &str, parameters: &[String]) -> String {
    format!("extern \"C\" {result} {name}({});", parameters.join(", "))
}

fn right(declaration: &Declaration) -> String {
    let (result, parameters) = declaration.types();
    declared(declaration.name, &result, &parameters)
}

/// A declaration with another result, with one parameter more, with each parameter of another type.
fn wrong(declaration: &Declaration) -> Vec<String> {
    let (result, parameters) = declaration.types();
    let other = || "float ***".to_owned();
    let mut all = vec![declared(declaration.name, &other(), &parameters)];
    all.push(declared(declaration.name, &result, &[&parameters[..], &[other()]].concat()));
    for i in 0..parameters.len() {
        let mut parameters = parameters.clone();
        parameters[i] = other();
        all.push(declared(declaration.name, &result, &parameters));
    }
    all
}

#[test]
fn declarations_are_those_of_the_headers() {
    let Some(folders) = std::env::var_os(VARIABLE) else {
        // Not by `eprintln!`, which the harness hides.
        return writeln!(std::io::stderr(), "NOT RUN: {VARIABLE} names no headers").unwrap();
    };
    for (age, headers) in std::env::split_paths(&folders).enumerate() {
        let uses = |d: &Declaration| format!("auto *address_of_{} = &{};", d.name, d.name);
        let unknown = refused(&headers, &DECLARATIONS.iter().map(uses).collect::<Vec<_>>());
        let (mut known, mut absent) = (Vec::new(), Vec::new());
        for (i, declaration) in DECLARATIONS.iter().enumerate() {
            let name = declaration.name;
            match (declaration.public, unknown.contains(&i)) {
                (true, false) => known.push(declaration),
                (false, true) => {}
                // The newest headers have all; older ones lack only what can be done without.
                (true, true) if age > 0 && declaration.lost.is_some() => absent.push(name),
                (public, _) => panic!("{name}: public is {public}, which the headers deny"),
            }
        }
        let rights: Vec<String> = known.iter().map(|d| right(d)).collect();
        let bad = refused(&headers, &rights);
        assert!(bad.is_empty(), "{:?}", bad.iter().map(|&i| &rights[i]).collect::<Vec<_>>());
        // Other declarations are refused, all of them: the comparison sees each type.
        let wrongs: Vec<String> = known.iter().flat_map(|d| wrong(d)).collect();
        let bad = refused(&headers, &wrongs);
        let passed: Vec<&String> =
            (0..wrongs.len()).filter(|i| !bad.contains(i)).map(|i| &wrongs[i]).collect();
        assert!(passed.is_empty(), "{passed:?}");

        let constants = ENUMERATORS.iter().chain(CONSTANTS);
        let mut facts: Vec<(String, i64)> =
            constants.map(|c| (c.name.to_owned(), c.value)).collect();
        for layout in LAYOUTS {
            let name = layout.name;
            facts.push((format!("sizeof({name})"), layout.bytes as i64));
            let field =
                |(field, at): &(&str, usize)| (format!("offsetof({name}, {field})"), *at as i64);
            facts.extend(layout.fields.iter().map(field));
        }
        let lines = |f: &dyn Fn(&str, i64) -> String| -> Vec<String> {
            facts.iter().map(|(what, value)| f(what, *value)).collect()
        };
        // What belongs to functions that are absent is absent with them.
        let gone =
            refused(&headers, &lines(&|what, _| format!("static_assert(({what}) == ({what}));")));
        assert!(age > 0 || gone.is_empty(), "{:?}", gone.iter().map(|&i| &facts[i]));
        let bad =
            refused(&headers, &lines(&|what, value| format!("static_assert({what} == {value});")));
        assert_eq!(bad, gone, "{:?}", bad.iter().map(|&i| &facts[i]).collect::<Vec<_>>());
        let off = refused(
            &headers,
            &lines(&|what, value| format!("static_assert({what} == {});", value + 1)),
        );
        assert_eq!(off.len(), facts.len(), "each comparison can fail");
        let (folder, functions, facts) = (headers.display(), known.len(), facts.len() - gone.len());
        writeln!(
            std::io::stderr(),
            "{folder}: {functions} functions, {facts} constants, sizes and places; absent: {absent:?}"
        )
        .unwrap();
    }
}
