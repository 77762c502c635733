//! `inject`: manifests in, injected manifests out, and a line about each workload on standard error.

use std::process::ExitCode;
use std::sync::Arc;

use serde_json::Value;
use sidecar_engine::{Engine, Namespace, Namespaces as _, Patch, Reason};

use crate::arguments::{InjectArguments, OutputFormat};
use crate::failure::Failure;
use crate::manifest::documents::{Document, Format, split};
use crate::manifest::input::{self, Source};
use crate::manifest::output::Stream;
use crate::manifest::{edit, workload};
use crate::sources::namespaces::NamespaceMap;
use crate::sources::offline;

pub(crate) fn run(arguments: &InjectArguments) -> Result<ExitCode, Failure> {
    let definitions = offline::definitions(&arguments.offline)?.current();
    let namespaces = offline::namespaces(&arguments.offline.namespace_file)?;
    let places = Places { namespaces, given: arguments.namespace.as_deref() };
    let mut report = Report::default();
    let mut stream = Stream::default();
    // Everything is read and understood before anything is written: a pipe into kubectl gets all or nothing.
    for source in input::read(&arguments.filename)? {
        for document in &split(&source)? {
            let patches = inject(&definitions.engine, &places, document, &source, &mut report)?;
            write(&mut stream, document, &patches, arguments.output, &source)?;
        }
    }
    stream.print()?;
    report.finish();
    Ok(if report.denied > 0 { ExitCode::from(1) } else { ExitCode::SUCCESS })
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
    places: &Places<'_>,
    document: &Document,
    source: &Source,
    report: &mut Report,
) -> Result<Vec<(String, Patch<'e>)>, Failure> {
    let value: Value =
        serde_json::from_str(&document.json).map_err(|error| Failure::input(&source.name, error))?;
    let mut patches = Vec::new();
    for place in workload::pods(&value) {
        let text = place.pod.to_string();
        match engine.inject(&text, &places.of(&place)) {
            Ok(injection) => {
                report.add(&place.object, &injection.decisions, injection.denied);
                if place.is_labelled_outside {
                    report.say(format!(
                        "{}: hint: the label belongs into the pod template (spec.template.metadata.labels)",
                        place.object
                    ));
                }
                if !injection.denied && !injection.patch.is_empty() {
                    patches.push((place.pointer, injection.patch));
                }
            }
            Err(error) => report.say(format!("{}: unchanged: {error}", place.object)),
        }
    }
    Ok(patches)
}

fn write(
    stream: &mut Stream,
    document: &Document,
    patches: &[(String, Patch<'_>)],
    output: Option<OutputFormat>,
    source: &Source,
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
            eprintln!(
                "{}: a document was written anew, its comments and its style could not be kept",
                source.name
            );
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
    denied: usize,
    lines: Vec<String>,
}

impl Report {
    fn add(&mut self, object: &str, decisions: &[sidecar_engine::Decision<'_>], denied: bool) {
        self.workloads += 1;
        self.denied += usize::from(denied);
        for decision in decisions {
            match decision.reason {
                Reason::Injected => self.say(format!("{object}: injected {}", decision.definition)),
                _ => self.say(format!("{object}: unchanged: {decision}")),
            }
        }
        if denied {
            self.say(format!("{object}: the webhook would deny its pods"));
        }
    }

    fn say(&mut self, line: String) {
        self.lines.push(line);
    }

    fn finish(&self) {
        for line in &self.lines {
            eprintln!("{line}");
        }
        if self.workloads == 0 {
            eprintln!(
                "nothing to inject into: no Pod, Deployment, StatefulSet, DaemonSet, ReplicaSet, ReplicationController, Job, CronJob or PodTemplate"
            );
        }
    }
}
