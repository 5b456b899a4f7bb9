//! A browser watches the demo's experiment stop on the page.

use std::io::{BufRead, BufReader};
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
        // SIGTERM, so that the demo ends its own processes.
        let _ = Command::new("kill").arg(self.0.id().to_string()).status();
        let _ = self.0.wait();
    }
}

/// Runs the demo for a person and the browser script beside it.
pub fn watch_the_demo(bin: &str) -> Result<()> {
    if !std::path::Path::new("ui/node_modules/playwright-core").is_dir() {
        bail!("ui/node_modules is missing: the console's build should have made it (is npm installed?)");
    }
    let demo = Command::new(bin).args(["demo", "--port", "8500"]).stdout(Stdio::piped()).spawn().context("demo")?;
    let mut demo = Killed(demo);
    let out = demo.0.stdout.take().context("no output")?;
    let mut lines = BufReader::new(out).lines();
    let link = loop {
        let line = lines.next().context("the demo ended early")??;
        if let Some((_, link)) = line.split_once("Watch it in the console:") {
            break link.trim().to_owned();
        }
    };
    std::thread::spawn(move || lines.for_each(drop));
    let status = Command::new("node")
        .arg("ui/e2e/demo.spec.mjs")
        .env("CONSOLE_URL", &link)
        .env("OUT_DIR", "target/screenshots")
        .status()
        .context("node")?;
    if !status.success() {
        bail!("the browser did not see what it should");
    }
    Ok(())
}
