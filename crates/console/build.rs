//! Builds `ui/` with npm when it changed and lists the files for embedding. Without npm the crate still builds, empty: the
//! server then says how to get the console. `SEAWORTHY_SKIP_CONSOLE=1` skips it on purpose (`cargo check` in an editor).

use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    let ui = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../ui");
    for part in ["src", "public", "index.html", "package.json", "package-lock.json", "vite.config.ts"] {
        println!("cargo::rerun-if-changed={}", ui.join(part).display());
    }
    println!("cargo::rerun-if-env-changed=SEAWORTHY_SKIP_CONSOLE");
    let out = PathBuf::from(std::env::var_os("OUT_DIR").unwrap_or_default());
    let dist = out.join("dist");
    let _ = std::fs::remove_dir_all(&dist);
    let skip = std::env::var_os("SEAWORTHY_SKIP_CONSOLE").is_some();
    if !skip {
        if let Err(reason) = build(&ui, &dist) {
            println!("cargo::warning=the web console is left out: {reason}");
        }
    }
    let mut files = Vec::new();
    list(&dist, &mut files);
    files.sort();
    let mut code = String::from("pub(crate) const FILES: &[(&str, &[u8])] = &[\n");
    for file in files {
        let name = file.strip_prefix(&dist).map(|p| p.to_string_lossy().into_owned()).unwrap_or_default();
        code.push_str(&format!("    ({name:?}, include_bytes!({:?})),\n", file.display().to_string()));
    }
    code.push_str("];\n");
    std::fs::write(out.join("files.rs"), code).expect("OUT_DIR is writable");
}

fn build(ui: &Path, dist: &Path) -> Result<(), String> {
    let npm = |words: &[&str]| {
        let output = Command::new("npm").args(words).current_dir(ui).output().map_err(|e| format!("npm: {e}"))?;
        if output.status.success() {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&output.stderr);
        Err(format!("npm {} failed: {}", words.join(" "), text.lines().last().unwrap_or_default()))
    };
    if !ui.join("node_modules").is_dir() || newer(&ui.join("package-lock.json"), &ui.join("node_modules")) {
        npm(&["ci", "--no-audit", "--no-fund"])?;
    }
    npm(&["run", "build", "--", "--outDir", &dist.display().to_string(), "--emptyOutDir"])
}

fn newer(a: &Path, b: &Path) -> bool {
    let time = |p: &Path| std::fs::metadata(p).and_then(|m| m.modified()).ok();
    matches!((time(a), time(b)), (Some(a), Some(b)) if a > b)
}

fn list(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() { list(&path, files) } else { files.push(path) }
    }
}
