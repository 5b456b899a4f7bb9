//! The demo's processes: started, told where the others are, and ended with the demo.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use http::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpSocket;
use tokio::process::{Child, Command};

use super::Args;
use crate::client::Client;

/// How long a process may take to say where it listens.
const PATIENCE: Duration = Duration::from_secs(20);

/// Everything that runs.
#[derive(Debug)]
pub struct World {
    children: Vec<Child>,
    /// The data directory.
    pub data: PathBuf,
    /// The control plane's address.
    pub base: String,
    temporary: Option<PathBuf>,
    /// The children's addresses, see [`reserve`].
    reserved: Vec<TcpSocket>,
}

impl Drop for World {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.start_kill();
        }
    }
}

/// A free address that stays ours: the services must know each other's addresses before they start. A socket that is bound but
/// does not listen keeps the kernel from giving the port to an outgoing connection, and lets a child with `SO_REUSEADDR` (tokio
/// sets it) listen there. A port that was merely seen to be free was taken by somebody's connection once in some hundred starts.
fn reserve() -> Result<(TcpSocket, SocketAddr)> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
    let address = socket.local_addr()?;
    Ok((socket, address))
}

/// The wanted port or the next free one.
fn port_from(wanted: u16) -> Result<u16> {
    (wanted..wanted.saturating_add(100))
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .ok_or_else(|| anyhow!("no free port from {wanted} on"))
}

impl World {
    /// Starts everything; gives a client with the admin token, and that token.
    pub async fn start(args: &Args, say: &dyn Fn(&str)) -> Result<(World, Client, String)> {
        let root = match &args.data {
            Some(data) => data.clone(),
            None => std::env::temp_dir().join(format!(
                "seaworthy-demo-{}-{:08x}",
                std::process::id(),
                getrandom::u32().unwrap_or(0)
            )),
        };
        let data = root.join("data");
        std::fs::create_dir_all(&data).with_context(|| format!("cannot make {}", data.display()))?;
        let temporary = args.data.is_none().then(|| root.clone());
        let mut world = World { children: Vec::new(), data, base: String::new(), temporary, reserved: Vec::new() };

        let data = world.data.display().to_string();
        let mut port = port_from(args.port)?;
        let told = loop {
            let listen = format!("127.0.0.1:{port}");
            match world.spawn(&root, "serve", &["serve", "--json", "--listen", &listen, "--data", &data], "").await {
                Ok(told) => break told,
                // Somebody was quicker between the look and the start.
                Err(error) => match port_from(port)? {
                    next if next > port => port = next,
                    _ => return Err(error),
                },
            }
        };
        if port != args.port {
            say(&format!("Port {} is taken, so the control plane takes {port}.", args.port));
        }
        world.base = format!("http://127.0.0.1:{port}");
        let admin =
            told["admin_token"].as_str().context("the data directory was used before: name an empty one")?.to_owned();
        say(&format!("control plane and console   {}", world.base));
        let client = Client::new(&world.base, &admin);
        let token = |role: &'static str| {
            let client = client.clone();
            async move {
                let made =
                    client.post("/api/v1/tokens", &json!({"name": format!("demo-{role}"), "role": role})).await?;
                made["secret"].as_str().map(str::to_owned).context("no token")
            }
        };
        let (proxy, ingest) = (token("proxy").await?, token("ingest").await?);
        let service = token("service").await?;

        let mut address = || -> Result<SocketAddr> {
            let (socket, address) = reserve()?;
            world.reserved.push(socket);
            Ok(address)
        };
        let (edge, mesh, web) = (address()?, address()?, address()?);
        let (catalog, playback, license) = (address()?, address()?, address()?);
        let control = world.base.clone();
        let next = format!("http://{mesh}");
        for (part, address) in [("license", license), ("playback", playback), ("catalog", catalog)] {
            let listen = address.to_string();
            world
                .spawn(
                    &root,
                    part,
                    &["shop", part, "--listen", &listen, "--next", &next, "--control", &control],
                    &ingest,
                )
                .await?;
        }
        let web_listen = web.to_string();
        world
            .spawn(
                &root,
                "web",
                &["shop", "web", "--listen", &web_listen, "--next", &next, "--control", &control],
                &service,
            )
            .await?;
        say(&format!(
            "shop                        web {web}, catalog {catalog}, playback {playback}, license {license}"
        ));

        let config = |name: &str, listen: SocketAddr, more: &str, routes: &[(&str, &str, SocketAddr)]| {
            let mut text = format!("name: {name}\nlisten: {listen}\ncontrol: {control}\n{more}routes:\n");
            for (route, path, upstream) in routes {
                text.push_str(&format!("  - {{name: {route}, path: {path}, upstream: 'http://{upstream}'}}\n"));
            }
            text
        };
        let files = [
            ("edge", config("edge", edge, "edge: true\nsubject: {header: x-user-id}\n", &[("web", "/", web)])),
            (
                "mesh",
                config(
                    "mesh",
                    mesh,
                    "",
                    &[
                        ("catalog", "/catalog", catalog),
                        ("playback", "/playback", playback),
                        ("license", "/license", license),
                    ],
                ),
            ),
        ];
        for (name, text) in files {
            let path = root.join(format!("{name}.yaml"));
            std::fs::write(&path, text)?;
            world.spawn(&root, name, &["proxy", "--json", "--config", &path.display().to_string()], &proxy).await?;
        }
        say(&format!("proxies                     in front {edge}, beside the services {mesh}"));

        // Before anybody asks for it: a flag that is made while users ask for it would move all of them at once.
        let definition =
            json!({"state": "ENABLED", "variants": {"classic": "classic", "new": "new"}, "defaultVariant": "classic"});
        client.call(Method::PUT, "/api/v1/flags/new-player", Some(&definition)).await?;

        let (seed, users, rate, front) =
            (args.seed.to_string(), args.users.to_string(), args.rate.to_string(), format!("http://{edge}"));
        let words = [
            "shop",
            "users",
            "--next",
            &front,
            "--control",
            &control,
            "--seed",
            &seed,
            "--users",
            &users,
            "--rate",
            &rate,
            "--weak",
            &args.weak,
        ];
        world.spawn(&root, "users", &words, &ingest).await?;
        say(&format!("users                       {} with sticky ids, {} plays per second", args.users, args.rate));
        Ok((world, client, admin))
    }

    /// Starts one process and reads the line of JSON by which it says that it is ready.
    async fn spawn(&mut self, root: &Path, name: &str, words: &[&str], token: &str) -> Result<Value> {
        let log = std::fs::File::create(root.join(format!("{name}.log")))?;
        let mut child = Command::new(std::env::current_exe()?)
            .args(words)
            .env("SEAWORTHY_TOKEN", token)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::from(log))
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        let out = child.stdout.take().context("no output")?;
        self.children.push(child);
        let mut lines = BufReader::new(out).lines();
        let line = tokio::time::timeout(PATIENCE, lines.next_line()).await;
        let line = line.ok().and_then(|l| l.ok().flatten());
        let line = line.ok_or_else(|| anyhow!("{name} did not start: {}", tail(&root.join(format!("{name}.log")))))?;
        // Whatever else it prints must not fill the pipe.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        serde_json::from_str(&line).with_context(|| format!("{name} said {line:?}"))
    }

    /// Runs the offline verifier on the data directory.
    pub async fn verify_audit(&self) -> Result<Value> {
        let data = self.data.display().to_string();
        let output = Command::new(std::env::current_exe()?)
            .args(["audit", "verify", "--json", "--data", &data])
            .output()
            .await?;
        let report: Value = serde_json::from_slice(&output.stdout).context("audit verify")?;
        Ok(json!({"size": report["size"], "verified": report["verified"]}))
    }

    /// Ends everything; a temporary directory goes with it.
    pub async fn end(&mut self) {
        for child in &mut self.children {
            let _ = child.start_kill();
        }
        for child in &mut self.children {
            let _ = child.wait().await;
        }
        if let Some(root) = &self.temporary {
            let _ = std::fs::remove_dir_all(root);
        }
    }
}

fn tail(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().rev().take(3).collect::<Vec<_>>().join(" | ")
}
