//! `inject`: manifests in, injected manifests out, and a line about each workload on standard error.

mod hints;

use std::collections::HashMap;
use std::process::ExitCode;
use std::sync::Arc;

use serde_json::Value;
use sidecar_engine::{Engine, Injection, Namespace, Namespaces as _, Patch, Reason};

use crate::arguments::{InjectArguments, OutputFormat};
use crate::commands::decisions::{conflicts, why};
use crate::failure::Failure;
use crate::manifest::documents::{Document, Format, split};
use crate::manifest::input::{self, Source};
use crate::manifest::output::Stream;
use crate::manifest::{edit, workload};
use crate::sources::namespaces::NamespaceMap;
use crate::sources::offline;

/// What makes the labels of a namespace known.
const OPTIONS: &str = "--namespace-file, or the name of another one with --namespace";

pub(crate) fn run(arguments: &InjectArguments) -> Result<ExitCode, Failure> {
    let definitions = offline::definitions(&arguments.offline)?.current();
    let given = offline::namespaces(&arguments.offline.namespace_file)?;
    let sources = input::read(&arguments.filename)?;
    // Everything is read and understood before anything is written: a pipe into kubectl gets all or nothing. And a
    // Namespace may stand behind its pods.
    let mut read = Vec::new();
    for source in &sources {
        for document in split(source)? {
            let value: Value =
                serde_json::from_str(&document.json).map_err(|error| Failure::input(&source.name, error))?;
            read.push((source, document, value));
        }
    }
    let found = read.iter().flat_map(|(_, _, value)| offline::namespaces_in(value));
    // Of two with one name the later one counts.
    let namespaces = NamespaceMap::of(found.chain(given));
    let places = Places { namespaces, given: arguments.namespace.as_deref() };
    // Annotations name a definition without its namespace.
    let names = definitions.engine.definitions();
    let names: Vec<_> = names.map(|name| name.rsplit('/').next().unwrap_or_default().to_owned()).collect();
    let mut report = Report::default();
    let mut stream = Stream::default();
    let mut numbers: HashMap<&str, usize> = HashMap::new();
    for (source, document, value) in &read {
        let number = numbers.entry(&source.name).or_default();
        *number += usize::from(!value.is_null());
        if !value.is_null() && value.get("kind").and_then(Value::as_str).is_none() {
            report.say(format!("{}: document {number} has no kind", source.name));
        }
        for near in workload::near_misses(value) {
            report.say(format!("{}: document {number} {near}", source.name));
        }
        let patches = inject(&definitions.engine, &names, &places, value, &mut report);
        write(&mut stream, document, &patches, arguments.output, source, &mut report)?;
    }
    // A pod that must not be without its sidecar must not be applied without it either.
    if report.denied.is_empty() {
        stream.print()?;
    }
    report.finish();
    Ok(if report.denied.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// Which namespaces the objects are for.
struct Places<'a> {
    namespaces: NamespaceMap,
    /// Stands for what the objects say.
    given: Option<&'a str>,
}

impl Places<'_> {
    fn of(&self, object: &workload::PodPlace<'_>) -> Arc<Namespace> {
        let name = self.given.or(object.namespace).unwrap_or("default");
        self.namespaces.get(name).unwrap_or_else(|| Arc::new(Namespace::unknown(name)))
    }
}

/// The patches for the pods in a document, each with the pointer to its pod.
fn inject<'e>(
    engine: &'e Engine,
    names: &[String],
    places: &Places<'_>,
    document: &Value,
    report: &mut Report,
) -> Vec<(String, Patch<'e>)> {
    let mut patches = Vec::new();
    for mut place in workload::pods(document) {
        let text = place.pod.to_string();
        let namespace = places.of(&place);
        let volumes = std::mem::take(&mut place.claimed_volumes);
        match engine.inject_template(&text, &namespace, volumes.clone()) {
            Ok(injection) => {
                report.add(&place.object, &injection, namespace.name());
                let mut hints = hints::of_place(&place, names);
                if !injection.denied && !injection.patch.is_empty() {
                    let patch = [(String::new(), injection.patch)];
                    // The engine applies no patch that it has not applied before.
                    if let Some(again) = sidecar_engine::apply_all(&text, &patch)
                        && let Ok(second) = engine.inject_template(&again, &namespace, volumes)
                    {
                        let first = &injection.decisions;
                        hints.extend(hints::of_second_call(first, &second, namespace.name(), OPTIONS));
                    }
                    let [(_, patch)] = patch;
                    patches.push((place.pointer, patch));
                }
                for hint in hints {
                    report.say(format!("{}: hint: {hint}", place.object));
                }
            }
            Err(error) => report.say(format!("{}: unchanged: {error}", place.object)),
        }
    }
    patches
}

fn write(
    stream: &mut Stream,
    document: &Document,
    patches: &[(String, Patch<'_>)],
    output: Option<OutputFormat>,
    source: &Source,
    report: &mut Report,
) -> Result<(), Failure> {
    let format = match output {
        None => document.format,
        Some(OutputFormat::Yaml) => Format::Yaml,
        Some(OutputFormat::Json) => Format::Json,
        Some(OutputFormat::Patch) => {
            for (pointer, patch) in patches {
                stream.push("", &format!("{}\n", patch.to_json(pointer)), Format::Json);
            }
            return Ok(());
        }
    };
    let failed = |error| Failure::input(&source.name, error);
    let (text, json) = if patches.is_empty() {
        (document.text.clone(), document.json.clone())
    } else {
        let edited = edit::apply(document, patches).map_err(failed)?;
        if !edited.kept && format == document.format {
            report.say(format!(
                "{}: a document was written anew, its comments and its style could not be kept",
                source.name
            ));
        }
        (edited.text, edited.json)
    };
    if format == document.format {
        stream.push(&document.before, &text, format);
    } else if json != "null" {
        stream.push("", &edit::rewrite(&json, format).map_err(failed)?, format);
    }
    Ok(())
}

/// What is said on standard error, once everything was understood and written.
#[derive(Default)]
struct Report {
    workloads: usize,
    /// The objects whose pods the webhook would deny.
    denied: Vec<String>,
    lines: Vec<String>,
}

impl Report {
    fn add(&mut self, object: &str, injection: &Injection<'_>, namespace: &str) {
        self.workloads += 1;
        // Nobody takes an object for unchanged because one of its sidecars was left out.
        let state = match injection {
            _ if injection.denied => "denied, ",
            _ if injection.patch.is_empty() => "unchanged, ",
            _ => "",
        };
        for decision in &injection.decisions {
            let name = &decision.definition;
            let why = why(decision, namespace, OPTIONS);
            self.say(match decision.reason {
                Reason::Injected => format!("{object}: injected {name}"),
                Reason::AlreadyPresent => format!("{object}: {state}has {name}: {why}"),
                _ => format!("{object}: {state}without {name}: {why}"),
            });
            for change in conflicts(decision) {
                self.say(format!("{object}: {change} ({name})"));
            }
        }
        if injection.denied {
            self.denied.push(object.to_owned());
        }
    }

    fn say(&mut self, line: String) {
        self.lines.push(line);
    }

    fn finish(&self) {
        for line in &self.lines {
            eprintln!("{line}");
        }
        if !self.denied.is_empty() {
            eprintln!("nothing was written: the webhook would deny the pods of {}", self.denied.join(", "));
        }
        if self.workloads == 0 {
            eprintln!(
                "nothing to inject into: no Pod, Deployment, StatefulSet, DaemonSet, ReplicaSet, ReplicationController, Job, CronJob or PodTemplate"
            );
        }
    }
}
