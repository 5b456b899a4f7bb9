//! `seaworthy flag refs` on a small tree in several languages: text, JSON, exit codes, what is left out.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::harness::{BIN, api, serve};

const TREE: &[(&str, &str)] = &[
    ("flags.json", ""),
    (".gitignore", "build/\n"),
    (
        "web/app.ts",
        "const on = await client.getBooleanValue('new-player', false);\nshow(on ? 'new-player-2' : 'old');\n",
    ),
    ("web/Buy.tsx", "const { value } = useFlag<boolean>(\n  \"checkout\",\n  false,\n);\n"),
    ("api/main.go", "on, err := client.BooleanValue(ctx, \"new-player\", false, ec)\n"),
    ("api/search.py", "SEARCH = \"search-index\"\nclient.get_string_value(SEARCH, \"v1\")\n"),
    ("jobs/Job.java", "if (client.getBooleanValue(\"night-batch\", false)) { run(); }\n"),
    ("jobs/run.rs", "if feature_on(\"gone-too\") { run() }\n"),
    ("docs/notes.md", "`isEnabled('only-in-prose')`, and old-banner\n"),
    ("build/out.js", "client.getBooleanValue('only-built', false)\n"),
    (".hidden/x.js", "client.getBooleanValue('only-hidden', false)\n"),
    ("logo.bin", "\0client.getBooleanValue('only-binary', false)\n"),
];

fn tree(dir: &Path) {
    for (name, text) in TREE {
        let path = dir.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    std::fs::write(dir.join("flags.json"), definitions().to_string()).unwrap();
}

fn definitions() -> Value {
    let flag = json!({"state": "ENABLED", "variants": {"on": true, "off": false}, "defaultVariant": "off"});
    json!({"flags": {"new-player": flag, "checkout": flag, "search-index": flag, "old-banner": flag}})
}

fn refs(dir: &Path, words: &[&str]) -> Output {
    let mut command = Command::new(BIN);
    command.current_dir(dir).args(["flag", "refs"]).args(words);
    command.env_remove("SEAWORTHY_TOKEN").env("XDG_CONFIG_HOME", dir).env("SEAWORTHY_LOG", "warn");
    command.output().unwrap()
}

/// Scenario: a repository with its flag document in it, no server. Guarantees: the three lists, and exit code 1.
#[test]
fn a_tree_and_its_flag_document() {
    let dir = tempfile::tempdir().unwrap();
    tree(dir.path());
    let output = refs(dir.path(), &[".", "--flags", "flags.json"]);
    let text = String::from_utf8(output.stdout).unwrap();
    let expected = "\
flag          references  where            how
checkout      1           web/Buy.tsx:2    useFlag
new-player    2           api/main.go:1    BooleanValue
                          web/app.ts:1     getBooleanValue
search-index  1           api/search.py:1  string

In code, but not in flags.json: everybody gets the default of the code.
key          calls  where            how
night-batch  1      jobs/Job.java:1  getBooleanValue

No code names it: safe to archive once nobody evaluates it.
  old-banner

Files read: 6. Flags in code: 3 of 4. Keys in code without a flag: 1.
Not searched: binary 1, flag documents 1, text for people 1.
";
    assert_eq!(text, expected);
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn json_patterns_and_exit_codes() {
    let dir = tempfile::tempdir().unwrap();
    tree(dir.path());
    let pattern = "feature_on\\(\"([^\"]+)\"\\)";
    let output = refs(dir.path(), &[".", "--flags", "flags.json", "--json", "--pattern", pattern]);
    assert_eq!(output.status.code(), Some(1));
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    let unknown: Vec<&str> = answer["unknown"].as_array().unwrap().iter().map(|u| u["key"].as_str().unwrap()).collect();
    assert_eq!(unknown, ["gone-too", "night-batch"]);
    assert_eq!(answer["unreferenced"], json!(["old-banner"]));
    assert_eq!(answer["complete"], true);
    let place = json!({"file": "api/main.go", "line": 1, "how": "call", "call": "BooleanValue"});
    assert_eq!(answer["flags"][1]["places"][0], place);

    let code = |words: &[&str]| refs(dir.path(), words).status.code();
    assert_eq!(code(&["web", "--flags", "flags.json"]), Some(0), "all keys of this part exist");
    assert_eq!(code(&[".", "--flags", "flags.json", "--pattern", "no group"]), Some(2));
    assert_eq!(code(&["nowhere", "--flags", "flags.json"]), Some(64));
    assert_eq!(code(&["."]), Some(64), "no token");
    std::fs::write(dir.path().join("broken.json"), r#"{"flags": {"a": {"state": "ON", "variants": {"on": 1}}}}"#)
        .unwrap();
    let broken = refs(dir.path(), &["web", "--flags", "broken.json"]);
    assert_eq!(broken.status.code(), Some(64));
    assert!(String::from_utf8_lossy(&broken.stderr).contains("/flags/a/state: expected ENABLED or DISABLED"));
}

/// Scenario: the flags are the server's.
#[test]
fn the_flags_of_a_server() {
    let dir = tempfile::tempdir().unwrap();
    tree(dir.path());
    let server = serve(&dir.path().join(".data"), "127.0.0.1:0");
    let token = server.ready["admin_token"].as_str().unwrap();
    let definition = &definitions()["flags"]["checkout"];
    let (status, _) = api(&server.address(), token, "PUT", "/api/v1/flags/checkout", definition);
    assert_eq!(status, 200);
    let output = Command::new(BIN)
        .args(["flag", "refs", "web", "--json", "--server", &format!("http://{}", server.address())])
        .current_dir(dir.path())
        .env("SEAWORTHY_TOKEN", token)
        .output()
        .unwrap();
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answer["flags"][0]["references"], 1);
    assert_eq!(answer["unknown"][0]["key"], "new-player");
    assert_eq!(output.status.code(), Some(1));
}
