//! What the documentation says of the command line, held against the binary and its sources.

use std::path::Path;

use crate::run;

#[test]
fn the_exit_codes_in_the_help_are_those_of_the_documentation() {
    let codes = |text: &str, mark: char| -> Vec<(char, String)> {
        let (_, rest) = text.split_once("xit codes").unwrap();
        let lines = rest.lines().skip_while(|line| !line.trim_start_matches(['|', ' ']).starts_with('0'));
        let lines = lines.take_while(|line| line.starts_with(mark));
        let words = lines.map(|line| line.trim_matches(['|', ' ']).replace('|', ""));
        words.map(|line| (line.chars().next().unwrap(), line[1..].trim().to_owned())).collect()
    };
    let help = codes(&run(&["--help"], "").stdout, ' ');
    let documented = codes(include_str!("../../../../docs/answers.md"), '|');
    assert_eq!(help.iter().map(|(code, _)| *code).collect::<String>(), "012345");
    assert_eq!(help, documented);
    for command in ["serve", "inject", "review", "validate", "check"] {
        let long = run(&[command, "--help"], "").stdout;
        assert!(long.contains("Exit code 0: "), "{command}");
    }
}

/// What is looked up: a setting in a manifest, an event in a log.
#[test]
fn settings_and_events_are_documented() {
    let page = include_str!("../../../../docs/answers.md");
    let help = run(&["serve", "--help"], "").stdout;
    let settings = help.split("[env: ").skip(1).filter_map(|rest| rest.split(['=', ']']).next());
    let mut words: Vec<String> = settings.map(ToOwned::to_owned).collect();
    assert!(words.len() > 30, "{words:?}");
    for file in sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src")) {
        let text = std::fs::read_to_string(file).unwrap();
        let events = text.split("event = \"").skip(1).filter_map(|rest| rest.split('"').next());
        words.extend(events.map(ToOwned::to_owned));
    }
    assert!(words.len() > 80, "{words:?}");
    words.retain(|word| {
        !page.contains(&format!("`{word}`")) && !page.contains(&format!("\"event\":\"{word}\""))
    });
    assert!(words.is_empty(), "not in docs/answers.md: {words:?}");
}

fn sources(folder: &Path) -> Vec<std::path::PathBuf> {
    let paths = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    paths.flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] }).collect()
}
