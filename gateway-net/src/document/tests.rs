use super::*;

#[test]
fn every_mistake_is_told_with_its_line_and_those_of_a_list_at_the_entry() {
    let text = "nmae = 1\n[[pump]]\nname = \"a\"\n\n[[pump]]\nspeed = 11\n[tank]\nopen = \"yes\"\n[lid]\n";
    let document = Document::parse(text);
    let mut root = document.root();
    assert!(root.required("name", "a name", Value::text).is_none());
    let names: Vec<_> = root
        .sections("pump")
        .into_iter()
        .map(|mut pump| {
            let name = pump.required("name", "a name", Value::text);
            pump.number("speed", 1, 1..=10);
            pump.finish();
            name
        })
        .collect();
    assert_eq!(names, [Some("a"), None]);
    let mut tank = root.section("tank");
    assert!(tank.is_there() && tank.has("open") && !tank.has("size"));
    assert_eq!((tank.flag("open", true), tank.optional("size", "a size", Value::integer)), (true, None));
    tank.finish();
    assert!(!root.section("hose").is_there() && root.sections("valve").is_empty());
    assert!(root.sections("lid").is_empty(), "a table is no list of tables");
    root.finish();
    let mistakes: Vec<_> = document.into_mistakes().iter().map(ToString::to_string).collect();
    assert_eq!(
        mistakes,
        [
            "line 1: nmae is an unknown key; accepted here: name, pump, tank, hose, valve, lid",
            "line 5: pump.name is missing; accepted: a name",
            "line 6: pump.speed = 11 is not accepted; accepted: a whole number from 1 to 10",
            "line 8: tank.open = \"yes\" is not accepted; accepted: true or false",
            "line 9: lid = {…} is not accepted; accepted: tables, each written as [[lid]]",
            "name is missing; accepted: a name",
        ]
    );
}
