//! What is known of a source, by whom, and what is answered when one side is down.

use super::*;

#[tokio::test]
async fn one_side_down() {
    let world = World::new("1m", "UTC");
    let minute = world.bucket("1m", 0);
    world.lock().read("a", 0, 1.0);
    world.lock().close(minute);
    world.lock().read("a", MINUTE, 1.0);
    let whole = check(&world, &ask("a", "1m"), "a@0 1 Closed, a@1 1 Open").await;
    assert!(!whole.partial);
    world.lock().store_down = true;
    assert!(check(&world, &ask("a", "1m"), "a@0 1 Settling").await.partial);
    assert!(check(&world, &ask("a", "1d"), "a@0 1 Settling").await.partial);
    for period in ["1m", "1d"] {
        assert!(check(&world, &ask("nobody", period), "").await.partial, "the store may know it");
    }
    assert!(query(&world).sources("", 10, None).await.unwrap().partial);
    world.lock().sink_down = true;
    for period in ["1m", "1d"] {
        assert!(matches!(query(&world).stats(&ask("a", period)).await, Err(QueryError::Unavailable(_))));
    }
    assert!(matches!(query(&world).sources("", 10, None).await, Err(QueryError::Unavailable(_))));
    assert!(matches!(query(&world).state(&"a".into()).await, Err(QueryError::Unavailable(_))));
    world.lock().store_down = false;
    assert!(check(&world, &ask("a", "1m"), "a@1 1 Open").await.partial);
    assert!(check(&world, &ask("a", "1d"), "a@0 1 Open").await.partial);
    assert!(query(&world).sources("", 10, None).await.unwrap().partial);
}

#[tokio::test]
async fn an_unknown_source_is_an_error_and_a_silent_one_is_not() {
    let world = World::new("1m", "UTC");
    let minute = world.bucket("1m", 0);
    world.lock().read("kitchen", 0, 1.0);
    world.lock().close(minute);
    world.lock().read("kitchen2", 0, 1.0);
    let later = |sources: &str| StatsQuery { from: Some(MINUTE), ..ask(sources, "1m") };
    check(&world, &later("kitchen,kitchen2"), "").await;
    let near = vec!["kitchen".into(), "kitchen2".into()];
    let expected = QueryError::UnknownSource { id: "kitchn".into(), near };
    assert_eq!(query(&world).stats(&later("kitchen,kitchn")).await, Err(expected.clone()));
    assert_eq!(query(&world).stats(&ask("kitchen,kitchn", "1m")).await, Err(expected.clone()));
    assert_eq!(query(&world).state(&"kitchn".into()).await, Err(expected));
    // The id of a source is the beginning of another one's, and not a source.
    assert!(query(&world).stats(&ask("kitch", "1m")).await.is_err());
    assert_eq!(query(&world).state(&"kitchen".into()).await, Ok(Vec::new()));
}

#[tokio::test]
async fn sources_of_both_sides_with_their_spans() {
    let world = World::new("1m", "UTC");
    let minute = world.bucket("1m", 0);
    for source in ["attic", "kitchen", "kitchen2"] {
        world.lock().read(source, 0, 1.0);
    }
    world.lock().close(minute);
    for source in ["cellar", "kitchen", "kitchen3"] {
        world.lock().read(source, 5 * MINUTE, 1.0);
    }
    let query = query(&world);
    let check = async |prefix: &str, limit: usize, cursor: Option<String>, expected: &str| {
        let page = query.sources(prefix, limit, cursor.as_deref()).await.unwrap();
        let brief =
            |s: &crate::stats::source::SourceSpan| format!("{} {}-{}", s.source, s.first / MINUTE, s.last / MINUTE);
        assert_eq!(page.sources.iter().map(brief).collect::<Vec<_>>().join(", "), expected, "{prefix:?}");
        page.next
    };
    let all = "attic 0-0, cellar 5-5, kitchen 0-5, kitchen2 0-0, kitchen3 5-5";
    assert_eq!(check("", 10, None, all).await, None);
    assert_eq!(check("", 5, None, all).await, None);
    assert_eq!(check("kitchen", 10, None, "kitchen 0-5, kitchen2 0-0, kitchen3 5-5").await, None);
    assert_eq!(check("cellar", 10, None, "cellar 5-5").await, None);
    assert_eq!(check("x", 10, None, "").await, None);
    let next = check("", 2, None, "attic 0-0, cellar 5-5").await;
    let next = check("", 2, next, "kitchen 0-5, kitchen2 0-0").await;
    assert_eq!(check("", 2, next, "kitchen3 5-5").await, None);
    assert_eq!(query.sources("", 2, Some("x")).await, Err(QueryError::Cursor));
}

#[tokio::test]
async fn the_state_of_a_source_is_each_life_by_itself() {
    let world = World::new("1m,1h", "UTC");
    let minute = world.bucket("1m", 0);
    world.lock().read("a", 0, 1.5);
    world.lock().close(minute);
    world.lock().read("a", MINUTE, 2.0);
    let next = world.bucket("1m", MINUTE);
    world.lock().write(next);
    let states = query(&world).state(&"a".into()).await.unwrap();
    let brief: Vec<_> = states.iter().map(|s| (s.bucket.period.to_string(), s.moments.clone(), s.written)).collect();
    assert_eq!(brief, [("1h".into(), Moments::of(1.5), false), ("1m".into(), Moments::of(2.0), true)]);
}
