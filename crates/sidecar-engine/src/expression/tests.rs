//! Every function once, every mistake once, and what an attacker would write.

use super::*;
use crate::json::Plan;

const POD: &str = r#"{
    "metadata": {"name": "web", "labels": {"app": "shop", "tier": "front"}, "annotations": {"x.example/y": "z", "big": "BIG"}},
    "spec": {"containers": [
        {"name": "app", "image": "a:1", "ports": [{"containerPort": 8080, "name": "http"}], "env": [{"name": "A", "value": "1"}],
         "resources": {"limits": {"memory": "1Gi"}}, "ratio": 0.5, "nothing": null},
        {"name": "other", "image": "b:2"}
    ], "hostNetwork": true}
}"#;

fn with_pod(pod: &str, source: &str) -> Result<String, String> {
    static PLAN: Plan = Plan::Fields(&[
        ("metadata", Plan::Fields(&[("labels", Plan::Whole), ("annotations", Plan::Open)])),
        ("spec", Plan::Fields(&[("containers", Plan::Items(&Plan::Open))])),
    ]);
    let pod = Json::read(pod, &PLAN).unwrap();
    let namespace = Json::parse(r#"{"name":"shop","labels":{"team":"payments"},"annotations":{}}"#).unwrap();
    let params = Json::parse(r#"{"level":"debug","port":80,"none":null}"#).unwrap();
    let container = pod.get("spec").and_then(|spec| spec.get("containers")?.items()?.first()).cloned();
    let (budget, container) = (Budget::default(), container.as_ref());
    let bindings = Bindings { pod: &pod, namespace: &namespace, params: &params, container, budget: &budget };
    compile(source)?.evaluate(&bindings).map(|json| json.to_string())
}

fn compile(source: &str) -> Result<Expression, String> {
    let parameters = Json::parse(r#"{"level":"debug","port":80,"none":null}"#).unwrap();
    let scope = Scope { parameters: &parameters, container: true };
    Expression::compile(source, &scope).map_err(|problems| {
        let show = |problem: &ExpressionProblem| match &problem.suggestion {
            Some(suggestion) => format!("{}; did you mean {suggestion:?}?", problem.message),
            None => problem.message.clone(),
        };
        problems.iter().map(show).collect::<Vec<_>>().join(" | ")
    })
}

fn evaluate(source: &str) -> Result<String, String> {
    with_pod(POD, source)
}

#[test]
fn expressions_see_the_pod_its_namespace_its_parameters_and_the_container() {
    for (source, expected) in [
        ("pod.metadata.labels['app']", r#""shop""#),
        ("pod.metadata.labels.app", r#""shop""#),
        ("pod.metadata.annotations['x.example/y']", r#""z""#),
        ("pod.metadata.labels", r#"{"app":"shop","tier":"front"}"#),
        ("has(pod.metadata.labels.app)", "true"),
        ("has(pod.metadata.labels.none)", "false"),
        ("has(pod.metadata.ownerReferences)", "false"),
        ("'app' in pod.metadata.labels", "true"),
        ("'none' in pod.metadata.labels", "false"),
        ("pod.spec.hostNetwork", "true"),
        ("pod.spec.containers.size()", "2"),
        ("size(pod.metadata.labels)", "2"),
        ("pod.spec.containers[0].name", r#""app""#),
        ("pod.spec.containers.map(c, c.name)", r#"["app","other"]"#),
        ("pod.spec.containers.filter(c, has(c.ports)).map(c, c.ports[0].containerPort)", "[8080]"),
        ("pod.spec.containers.exists(c, c.image == 'b:2')", "true"),
        ("pod.spec.containers.all(c, c.image.startsWith('b'))", "false"),
        ("pod.spec.containers.exists_one(c, c.name == 'app')", "true"),
        ("pod.metadata.labels.map(k, k)", r#"["app","tier"]"#),
        ("pod.spec.containers[0].ports[0].containerPort == 8080", "true"),
        ("pod.spec.containers[0].ports[0].containerPort == 8080.0", "true"),
        ("pod.spec.containers[0].ports == [{'containerPort': 8080, 'name': 'http'}]", "true"),
        ("{'name': 'http', 'containerPort': 8080} == pod.spec.containers[0].ports[0]", "true"),
        ("{'name': 'http'} == pod.spec.containers[0].ports[0]", "false"),
        ("{'app': 'shop', 'tier': 'front'} == pod.metadata.labels", "true"),
        ("pod.metadata.labels != {'app': 'shop'}", "true"),
        ("{'containerPort': 8080, 'name': 'http'} in pod.spec.containers[0].ports", "true"),
        ("container.ratio", "0.5"),
        ("has(container.nothing)", "false"),
        ("has(container.resources.limits) ? container.resources.limits : null", r#"{"memory":"1Gi"}"#),
        ("namespace.name + '/' + namespace.labels.team", r#""shop/payments""#),
        ("params.level == 'debug' ? [1, 2] : null", "[1,2]"),
        ("params.port + 1", "81"),
        ("has(params.none)", "true"),
        ("params.none == null", "true"),
        ("{'b': 1, 'a': {'c': [true, null, 1.5]}}", r#"{"b":1,"a":{"c":[true,null,1.5]}}"#),
        ("{}", "{}"),
        ("{'z': 1, 'y': 2, 'x': 3}.map(k, k)", r#"["z","y","x"]"#),
        ("pod.metadata.?labels.?none.orValue('x')", r#""x""#),
        ("pod.?metadata.labels.app.orValue('x')", r#""shop""#),
        ("pod.metadata.labels[?'app'].hasValue()", "true"),
        ("optional.of(1).value()", "1"),
        ("optional.none().hasValue()", "false"),
        ("[[1, 2], [3]].map(l, l.map(x, x * 2))", "[[2,4],[6]]"),
        ("type(params.port) == int", "true"),
        ("quantity('1Gi').sub(quantity('512Mi'))", r#""536870912""#),
        // A reserved word of CEL, and a name here; only as a name.
        ("namespace.name + 'namespace' + {'namespace': 'x'}.namespace", r#""shopnamespacex""#),
        ("has(namespace.labels.team) && namespace . name == \"shop\"", "true"),
        ("{'namespace': 'x'}.?namespace.orValue('')", "\"x\""),
    ] {
        assert_eq!(evaluate(source).as_deref(), Ok(expected), "{source}");
    }
}

#[test]
fn the_functions_of_admission_policies_are_there() {
    for (source, expected) in [
        ("'abc'.contains('b') && 'abc'.startsWith('a') && 'abc'.endsWith('c')", "true"),
        ("'a-1'.matches('^[a-z]-[0-9]$')", "true"),
        ("matches('a-1', '^x')", "false"),
        ("params.level.matches(params.level)", "true"),
        ("'a1b22'.find('[0-9]+')", r#""1""#),
        ("'a1b22'.findAll('[0-9]+')", r#"["1","22"]"#),
        ("'a1b22'.findAll('[0-9]+', 1)", r#"["1"]"#),
        ("'ab'.find('[0-9]+')", r#""""#),
        ("'abc'.charAt(1)", r#""b""#),
        ("'abcb'.indexOf('b')", "1"),
        ("'abcb'.lastIndexOf('b')", "3"),
        ("'abcb'.indexOf('b', 2)", "3"),
        ("['a', 'b'].join('-')", r#""a-b""#),
        ("['a', 'b'].join()", r#""ab""#),
        ("'aBc'.lowerAscii() + 'aBc'.upperAscii()", r#""abcABC""#),
        ("' a '.trim()", r#""a""#),
        ("'a.b.c'.replace('.', '-')", r#""a-b-c""#),
        ("'a.b.c'.replace('.', '-', 1)", r#""a-b.c""#),
        ("'a,b'.split(',')", r#"["a","b"]"#),
        ("'a,b,c'.split(',', 2)", r#"["a","b,c"]"#),
        ("'abc'.substring(1)", r#""bc""#),
        ("'abc'.substring(1, 2)", r#""b""#),
        ("'%s is %d'.format(['a', 1])", r#""a is 1""#),
        ("'abc'.reverse()", r#""cba""#),
        ("[1, 2, 2].isSorted() && ![2, 1].isSorted()", "true"),
        ("[1, 2, 3].sum()", "6"),
        ("[].sum()", "0"),
        ("[3, 1, 2].min() + [3, 1, 2].max()", "4"),
        ("[1, 2, 1].indexOf(1)", "0"),
        ("[1, 2, 1].lastIndexOf(1)", "2"),
        ("[1, 2].indexOf(3)", "-1"),
        ("quantity('1Gi').isGreaterThan(quantity('1023Mi'))", "true"),
        ("quantity('100m').isLessThan(quantity('1'))", "true"),
        ("quantity('1').compareTo(quantity('1000m'))", "0"),
        ("quantity('1') == quantity('1000m')", "true"),
        ("quantity('1k').asInteger()", "1000"),
        ("quantity('1m').isInteger()", "false"),
        ("quantity('500m').asApproximateFloat()", "0.5"),
        ("quantity('-1').sign()", "-1"),
        ("string(quantity('100m').add(quantity('0.2')))", r#""300m""#),
        ("string(quantity('1Gi').sub(1))", r#""1073741823""#),
        ("isQuantity('1x')", "false"),
        ("isQuantity('1Ki')", "true"),
        ("url('https://example.com:80/a%20b?x=1&x=2&y=a%20b').getScheme()", r#""https""#),
        ("url('https://example.com:80/').getHost()", r#""example.com:80""#),
        ("url('https://example.com:80/').getHostname()", r#""example.com""#),
        ("url('https://[::1]:80/').getHostname()", r#""::1""#),
        ("url('https://example.com:80/').getPort()", r#""80""#),
        ("url('https://example.com/').getPort()", r#""""#),
        ("url('https://example.com/a%20b').getEscapedPath()", r#""/a%20b""#),
        ("url('/p?x=1&x=2&y=a%20b').getQuery()", r#"{"x":["1","2"],"y":["a b"]}"#),
        ("isURL('/a') && isURL('https://a') && !isURL('a b') && !isURL('a')", "true"),
        ("int('3') + int(2.0) + int(1u)", "6"),
        ("string(1) + string(true) + string(1.5)", r#""1true1.5""#),
        ("double('1.5')", "1.5"),
        ("bool('true')", "true"),
        ("7 % 4 - 1 * 2 / 1", "1"),
        ("1 < 2 && 'a' <= 'b' && 2.0 >= 1.5", "true"),
        ("dyn([1, 'a']).size()", "2"),
    ] {
        assert_eq!(evaluate(source).as_deref(), Ok(expected), "{source}");
    }
}

#[test]
fn mistakes_are_found_when_a_definition_is_loaded() {
    for (source, problem) in [
        ("1 +", "is not CEL"),
        (
            "pd.metadata",
            "there is no \"pd\" here, there are pod, namespace, params, container; did you mean \"pod\"?",
        ),
        ("params.lvel", "there is no parameter \"lvel\"; did you mean \"level\"?"),
        ("params['lvel']", "there is no parameter \"lvel\"; did you mean \"level\"?"),
        ("namespace.label", "a namespace has no \"label\"; did you mean \"labels\"?"),
        ("'a'.startWith('b')", "there is no function \"startWith\"; did you mean \"startsWith\"?"),
        ("'a'.startsWith()", "\"startsWith\" is used as x.startsWith(…)"),
        ("startsWith('a')", "\"startsWith\" is used as x.startsWith(…)"),
        ("'a'.matches('[')", "is no regular expression"),
        ("'a'.matches('(a{100}){100}{100}')", "is no regular expression"),
        ("Pod{name: 'a'}", "messages NAME{...} cannot be made here"),
        ("{?'a': optional.none()}", "optional entries"),
        ("pod.spec.containers.map(c, d)", "there is no \"d\" here"),
        ("duration('1s')", "there is no function \"duration\""),
        (
            "x.y + z",
            "there is no \"x\" here, there are pod, namespace, params, container | there is no \"z\" here",
        ),
    ] {
        let found = compile(source).map(|_| ()).unwrap_err();
        assert!(found.contains(problem), "{source}: {found}");
    }
    let scope = Scope { parameters: &Json::Null, container: false };
    let found = Expression::compile("container.name", &scope).unwrap_err();
    assert!(found[0].message.contains("only in patchContainers"), "{found:?}");
}

#[test]
fn what_needs_no_pod_is_known_to_need_none() {
    for (source, is_settled) in [
        ("1 + 1", true),
        ("params.port + 1", true),
        ("params['port'] + params.port", true),
        ("has(params.level) ? params.level : 'x'", true),
        ("[1].map(pod, pod + params.port)", true),
        ("params.none", false),
        ("params.port + params.none", false),
        ("params.map(k, k)", false),
        ("params[params.level]", false),
        ("pod.spec", false),
        ("true || namespace.name == 'x'", false),
        ("container.name", false),
    ] {
        assert_eq!(compile(source).unwrap().is_settled, is_settled, "{source}");
    }
}

#[test]
fn what_fails_for_a_pod_is_said_in_one_line_without_its_values() {
    for (source, problem) in [
        ("pod.metadata.labels.none", "there is no \"none\""),
        ("pod.metadata.labels['none']", "there is no \"none\""),
        ("params[pod.metadata.labels.app]", "a key that was worked out is not there"),
        ("pod.spec.containers[7]", "the list has no item of that number"),
        ("int(pod.metadata.labels.app)", "\"int\" cannot do that with this value"),
        ("1 / 0", "divides by zero"),
        ("9223372036854775807 + 1", "gives a number that is too large"),
        ("pod.metadata.labels.app + 1", "\"+\" does not work with these two values"),
        ("pod.metadata.labels.app < 1", "\"<\" does not work with string and int"),
        ("quantity(pod.metadata.labels.app)", "\"quantity\" is given what is none"),
        ("[1].map(x, {1: x})", "a map has strings for keys here"),
        ("pod.metadata.labels.app.matches(params.level + '[')", "has no regular expression there"),
        ("[].min()", "an empty list has no least or greatest item"),
        ("pod.metadata.labels.app.format(1)", "\"format\" does not work with string and int"),
        ("container.env[0].value.size", "does not work with string"),
    ] {
        let found = evaluate(source).unwrap_err();
        assert!(found.contains(problem), "{source}: {found}");
        assert!(!found.contains("shop") && !found.contains('\n'), "{source}: {found}");
    }
}

/// Otherwise a definition with a thousand expressions would have a thousand budgets.
#[test]
fn all_expressions_of_a_definition_have_one_budget() {
    let empty = Json::Object(Vec::new());
    let budget = Budget::default();
    let bindings =
        Bindings { pod: &empty, namespace: &empty, params: &empty, container: None, budget: &budget };
    let loops =
        "[1,2,3,4,5,6,7,8,9,10].all(a, [1,2,3,4,5,6,7,8,9,10].all(b, [1,2,3,4,5,6,7,8,9,10].all(c, true)))";
    let expression = compile(loops).unwrap();
    let fits = (0..1000).take_while(|_| expression.evaluate(&bindings).is_ok()).count();
    assert!((2..100).contains(&fits), "{fits}");
}

/// What no plan reads is read anew each time it is looked at: for each of 2,000 arguments, half a megabyte.
#[test]
fn looking_at_a_large_part_of_the_pod_again_and_again_is_paid_for() {
    let volumes =
        (0..8000).map(|index| format!(r#"{{"name":"v{index}","emptyDir":{{}},"x":"{}"}}"#, "y".repeat(30)));
    let pod = format!(
        r#"{{"metadata":{{}},"spec":{{"volumes":[{}],"containers":[{{"name":"a","args":[{}]}}]}}}}"#,
        volumes.collect::<Vec<_>>().join(","),
        vec!["1"; 2000].join(",")
    );
    let look = "size(pod.spec.volumes) == 8000";
    assert_eq!(with_pod(&pod, look), Ok("true".to_owned()));
    let again = with_pod(&pod, &format!("pod.spec.containers[0].args.all(x, {look})"));
    assert_eq!(again, Err(super::budget::SPENT.to_owned()));
}

/// Each of these would take minutes or gigabytes without a limit. On a thread with as little stack as the server's have.
#[test]
fn no_expression_takes_long() {
    let containers: Vec<_> =
        (0..1000).map(|index| format!(r#"{{"name":"c{index}","env":[1,2,3,4,5,6,7,8]}}"#)).collect();
    let big = "a".repeat(1_000_000);
    let pod = format!(
        r#"{{"metadata":{{"labels":{{}},"annotations":{{"big":"{big}"}}}},"spec":{{"containers":[{}]}}}}"#,
        containers.join(",")
    );
    let all = "pod.spec.containers";
    let nested = format!("{all}.map(a, {all}.map(b, {all}.map(c, {all}.map(d, a))))");
    let exists =
        format!("{all}.exists(a, {all}.exists(b, {all}.exists(c, a.name == b.name && c.name == 'x')))");
    let doubling = format!("['aaaaaaaaaaaaaaaa']{}", ".map(x, x + x + x + x)".repeat(30));
    let lists = format!("[[1, 2, 3, 4]]{}", ".map(x, x + x + x + x)".repeat(30));
    let replaced =
        format!("'{}'{}", "a".repeat(100), format!(".replace('a', '{}')", "a".repeat(100)).repeat(20));
    let joined =
        format!("{all}.map(c, pod.metadata.annotations['big']).join(pod.metadata.annotations['big'])");
    let counted =
        format!("[pod.metadata.annotations['big']].map(x, [{}].sum())", vec!["size(x)"; 400].join(", "));
    let searched =
        "pod.metadata.annotations['big'].indexOf(pod.metadata.annotations['big'] + 'b')".to_owned();
    let split =
        "pod.metadata.annotations['big'].split('').map(x, x.split('')).map(x, x.map(y, y + y))".to_owned();
    let bomb = "pod.metadata.annotations['big'].matches('(a|a|a|a)*(a|a|a)*(a|a)*b')".to_owned();
    let compiled = format!("{all}.filter(c, 'a'.matches(c.name + '{}'))", "(x{50})".repeat(10));
    let equal = format!("{all}.filter(c, {all} == {all})");
    let contained = format!("{all}.filter(c, {all}.filter(d, d in {all}).size() > 0)");
    let literal = format!(
        "[{}]{}",
        vec!["1"; 200].join(","),
        ".map(x, [1,2,3,4,5,6,7,8,9,10].map(y, [1,2,3,4,5,6,7,8,9,10].map(z, [1,2,3,4,5,6,7,8,9].map(w, x))))"
    );
    // The interpreter copies what it puts into a list or an optional value: doubled often enough, out of memory.
    let copies = ["[x, x]", "[x, x, x, x]", "optional.of([x, x])", "[[x, x][?0], [x, x][?0]]"]
        .map(|step| format!("[[1]]{}.size() == 1", format!(".map(x, {step})").repeat(40)));
    let inside = format!("[[1]].map(x, {}x{}).size() == 1", "[[x, x]].map(x, ".repeat(18), ")".repeat(18));
    let printed = format!("['a']{}.size() == 1", ".map(x, '%s%s'.format([x, x]))".repeat(40));
    let maps = format!("'%s'.format([[{{'a': 1}}]{}])", ".map(x, {'a': x, 'b': x})".repeat(40));
    let again =
        format!("[{all}.map(c, c.name)].map(x, {all}.exists(c, [x, x, x, x, x, x, x, x].size() == 0))");
    let sources = copies.into_iter().chain([
        inside, printed, maps, again, nested, exists, doubling, lists, replaced, joined, counted, searched,
        split, bomb, compiled, equal, contained, literal,
    ]);
    std::thread::Builder::new()
        .stack_size(2 << 20)
        .spawn(move || {
            for source in sources {
                let found = with_pod(&pod, &source).unwrap_err();
                let is_limited = [budget::SPENT, "more than a megabyte", "no regular expression"]
                    .iter()
                    .any(|limit| found.contains(limit));
                assert!(is_limited, "{}: {found}", source.get(..80).unwrap_or(&source));
            }
            // What is only large, and looked at once, is no attack.
            assert_eq!(
                with_pod(&pod, "pod.metadata.annotations['big']").map(|text| text.len()),
                Ok(1_000_002)
            );
            for (deep, times) in [
                ("(", 4000),
                ("[", 4000),
                ("!", 4000),
                ("-", 4000),
                ("1+", 2000),
                ("{'a':", 800),
                ("a.", 2000),
                ("a?b:", 1000),
                ("size(", 800),
                ("[1].map(x,", 400),
                ("1||", 1300),
                ("true?true:", 400),
            ] {
                let found = compile(&deep.repeat(times));
                assert!(found.is_err(), "{deep}");
            }
            for (first, more, times) in [
                ("1", "+1", 2040),
                ("true", "&&true", 680),
                ("true", "||true", 680),
                ("''", "+''", 1300),
                ("pod", ".a", 2040),
                ("pod", "[0]", 1360),
                ("[1]", ".map(x,x)", 450),
                ("true", "?true:true", 400),
            ] {
                let _ = compile(&format!("{first}{}", more.repeat(times)));
            }
        })
        .unwrap()
        .join()
        .unwrap();
}

mod properties {
    use proptest::prelude::*;

    use super::{compile, with_pod};

    /// Pieces of CEL, put together in any way.
    fn pieces() -> impl Strategy<Value = String> {
        let piece = prop::sample::select(vec![
            "pod",
            ".",
            "metadata",
            "labels",
            "[",
            "]",
            "'a'",
            "\"",
            "(",
            ")",
            "{",
            "}",
            "?",
            ":",
            ",",
            "+",
            "-",
            "*",
            "/",
            "%",
            "1",
            "0",
            "9223372036854775807",
            "-1",
            "1.5",
            "1e400",
            "1u",
            "has(",
            "map(",
            "filter(",
            "exists(",
            "all(",
            "x",
            "==",
            "!=",
            "<",
            "in",
            "&&",
            "||",
            "!",
            "size(",
            "matches(",
            "'['",
            "replace(",
            "split(",
            "join(",
            "format(",
            "params",
            "none",
            "container",
            "name",
            "substring(",
            "charAt(",
            "quantity(",
            "url(",
            "optional",
            "of(",
            "orValue(",
            "null",
            "true",
            "b'\\xff'",
            "r'\\'",
            "'\\u12'",
            " ",
            "sum()",
            "min()",
            "indexOf(",
            "type(",
            "int(",
            "string(",
            "double(",
            "%s",
            "\u{0}",
            "é",
            "timestamp(",
            "optMap(",
            "@result",
        ]);
        prop::collection::vec(piece, 0..16).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn any_text_compiles_or_is_refused(text in ".{0,40}") {
            let _ = compile(&text);
        }

        #[test]
        fn any_expression_has_a_value_or_an_error(source in pieces()) {
            let _ = with_pod(super::POD, &source);
        }
    }
}
