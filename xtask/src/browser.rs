//! A browser watches the demo's experiment stop on the page, and drives the flags of a server of its own.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};

/// Debian's Chromium, where it is missing and we may install it.
pub fn install() -> Command {
    let mut command = Command::new("sh");
    let script = "command -v chromium >/dev/null && exit 0
        [ \"$(id -u)\" = 0 ] || { echo 'chromium is missing: install it (Debian: apt-get install chromium)'; exit 1; }
        apt-get update -q >/dev/null && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends chromium >/dev/null";
    command.args(["-c", script]);
    command
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // SIGTERM, so that the demo ends its own processes, and a server closes its log.
        let _ = Command::new("kill").arg(self.0.id().to_string()).status();
        let _ = self.0.wait();
    }
}

/// The console's build leaves its packages behind; the scripts below need them.
pub fn installed_by_the_build() -> Result<()> {
    if !Path::new("ui/node_modules/playwright-core").is_dir() {
        bail!("ui/node_modules is missing: the console's build should have made it (is npm installed?)");
    }
    Ok(())
}

/// Types of the console, and what it says in words.
pub fn check_the_console() -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", "npm run check --silent && npm test --silent"]).current_dir("ui");
    command
}

/// Runs the demo for a person and the browser script beside it.
pub fn watch_the_demo(bin: &str) -> Result<()> {
    let mark = "Watch it in the console:";
    beside(Command::new(bin).args(["demo", "--port", "8500"]), mark, "demo.spec.mjs")
}

/// Runs a server with nothing in it and drives the flags of its console, from the first one made to its history.
pub fn drive_the_flags(bin: &str) -> Result<()> {
    let data = Path::new("target/browser-data");
    if data.exists() {
        std::fs::remove_dir_all(data).context("the data of the last run")?;
    }
    // The token goes below target, not to the command line of whoever runs this.
    let mut serve = Command::new(bin);
    serve.args(["serve", "--listen", "127.0.0.1:0", "--data"]).arg(data.join("server"));
    beside(serve.env("XDG_CONFIG_HOME", data.join("config")), "log in:", "flags.spec.mjs")
}

/// Starts a program, takes the log-in link behind `mark` from what it prints, and runs a script of `ui/e2e` with it.
fn beside(program: &mut Command, mark: &str, script: &str) -> Result<()> {
    let mut program = Killed(program.stdout(Stdio::piped()).spawn().context("the program beside the browser")?);
    let out = program.0.stdout.take().context("no output")?;
    let mut lines = BufReader::new(out).lines();
    let link = loop {
        let line = lines.next().context("the program beside the browser ended early")??;
        if let Some((_, link)) = line.split_once(mark) {
            break link.trim().to_owned();
        }
    };
    std::thread::spawn(move || lines.for_each(drop));
    let status = Command::new("node")
        .arg(Path::new("ui/e2e").join(script))
        .env("CONSOLE_URL", &link)
        .env("OUT_DIR", "target/screenshots")
        .status()
        .context("node")?;
    if !status.success() {
        bail!("the browser did not see what it should ({script})");
    }
    Ok(())
}
