//! The conversation: messages, calls, truncation, what the model is given.
#![allow(clippy::unwrap_used)]

mod support;

use duologue_session::{
    Clause, Config, ErrorCode, Event, Finish, Item, ItemId, ItemKind, ItemStatus, Limits, Modality,
    Notice, Place, ReplyPatch, ReplyStatus, Role, State,
};
use support::{World, ms};

fn create(world: &mut World, id: &str, role: Role, text: &str) {
    world.tell(Event::CreateItem {
        item: Item::message(id, role, text),
        place: Place::End,
    });
}

fn errors(world: &World) -> Vec<ErrorCode> {
    world
        .notices()
        .into_iter()
        .filter_map(|n| match n {
            Notice::Error { code, .. } => Some(*code),
            _ => None,
        })
        .collect()
}

#[test]
fn typed_messages_are_answered_when_asked() {
    let mut world = World::new(Config::default());
    create(&mut world, "", Role::User, "What is two and two?");
    world.run_for(ms(1_000));
    assert_eq!(world.state(), State::WaitingForInput, "nobody asked");
    world.tell(Event::CreateReply(ReplyPatch::default()));
    world.run_for(ms(20_000));
    assert_eq!(world.last_prompt(), ["user: What is two and two?"]);
    assert_eq!(world.outcomes()[0].status, ReplyStatus::Completed);
}

#[test]
fn items_have_names_order_and_a_previous_one() {
    let mut world = World::new(Config::default());
    create(&mut world, "a", Role::User, "1");
    create(&mut world, "c", Role::User, "3");
    let place = Place::After("a".into());
    world.tell(Event::CreateItem {
        item: Item::message("b", Role::User, "2"),
        place,
    });
    world.tell(Event::CreateItem {
        item: Item::message("z", Role::System, "0"),
        place: Place::Start,
    });
    assert_eq!(
        world.conversation(),
        ["system: 0", "user: 1", "user: 2", "user: 3"]
    );
    let previous: Vec<Option<ItemId>> = world
        .notices()
        .into_iter()
        .filter_map(|n| match n {
            Notice::ItemAdded { previous, .. } => Some(previous.clone()),
            _ => None,
        })
        .collect();
    assert_eq!(previous, [None, Some("a".into()), Some("a".into()), None]);
}

#[test]
fn wrong_requests_are_told_and_change_nothing() {
    let mut world = World::new(Config::default());
    create(&mut world, "a", Role::User, "1");
    create(&mut world, "a", Role::User, "again");
    let place = Place::After("nowhere".into());
    world.tell(Event::CreateItem {
        item: Item::message("b", Role::User, "2"),
        place,
    });
    world.tell(Event::DeleteItem("nothing".into()));
    world.tell(Event::RetrieveItem("nothing".into()));
    world.tell(Event::TruncateItem {
        item: "nothing".into(),
        audio_end: ms(5),
    });
    world.tell(Event::TruncateItem {
        item: "a".into(),
        audio_end: ms(5),
    });
    world.tell(Event::CancelReply(None));
    assert_eq!(
        errors(&world),
        [
            ErrorCode::ItemExists,
            ErrorCode::ItemNotFound,
            ErrorCode::ItemNotFound,
            ErrorCode::ItemNotFound,
            ErrorCode::ItemNotFound,
            ErrorCode::BadTruncation,
            ErrorCode::NoReplyActive,
        ]
    );
    assert_eq!(world.conversation(), ["user: 1"]);
}

#[test]
fn items_are_deleted_and_retrieved() {
    let mut world = World::new(Config::default());
    create(&mut world, "a", Role::User, "1");
    create(&mut world, "b", Role::User, "2");
    world.tell(Event::DeleteItem("a".into()));
    world.tell(Event::RetrieveItem("b".into()));
    assert_eq!(world.conversation(), ["user: 2"]);
    assert!(
        world
            .notices()
            .iter()
            .any(|n| matches!(n, Notice::ItemRetrieved { item } if item.text() == "2"))
    );
}

#[test]
fn truncation_by_the_client_leaves_what_it_played() {
    let mut world = World::new(Config::default());
    world.replies = vec![vec![Clause::plain("One two three four five.")]];
    world.says(ms(500), ms(1_000), "count to five");
    world.run_until(ms(20_000));
    let item = world.session.items()[1].id.clone();
    let truth = world.truth.values().next().unwrap().clone();
    let end_of_two = truth.words[1].2;
    world.tell(Event::TruncateItem {
        item: item.clone(),
        audio_end: ms(end_of_two / 48),
    });
    assert_eq!(world.conversation()[1], "assistant: One two");
    assert_eq!(world.session.items()[1].status, ItemStatus::Incomplete);
    assert!(
        world
            .notices()
            .iter()
            .any(|n| matches!(n, Notice::ItemTruncated { text, .. } if text == "One two"))
    );
    world.tell(Event::TruncateItem {
        item: item.clone(),
        audio_end: ms(1_000_000),
    });
    assert_eq!(errors(&world), [ErrorCode::BadTruncation]);
    world.tell(Event::TruncateItem {
        item,
        audio_end: ms(0),
    });
    assert_eq!(world.conversation()[1], "assistant: ");
}

#[test]
fn truncating_the_reply_under_way_stops_it() {
    let mut world = World::new(Config::default());
    world.says(ms(500), ms(1_000), "tell me something");
    world.run_until_speaking();
    world.run_for(ms(1_500));
    let item = world.session.items()[1].id.clone();
    world.tell(Event::TruncateItem {
        item,
        audio_end: ms(800),
    });
    assert_eq!(world.conversation()[1], "assistant: Certainly.");
    assert_eq!(world.state(), State::WaitingForInput);
}

#[test]
fn a_function_call_waits_for_its_output_and_then_for_the_word_to_go_on() {
    let mut world = World::new(Config::default());
    world.mute_model = true;
    create(&mut world, "", Role::User, "What is the weather?");
    world.tell(Event::CreateReply(ReplyPatch::default()));
    let reply = world.session.reply().unwrap();
    let (call_id, name, arguments) = ("call_1".to_owned(), "weather".to_owned(), "{}".to_owned());
    world.tell(Event::ReplyToolCall {
        reply,
        call_id: call_id.clone(),
        name,
        arguments,
    });
    world.tell(Event::ReplyEnded {
        reply,
        finish: Finish::ToolCalls,
        usage: None,
    });
    assert_eq!(world.state(), State::WaitingForInput);
    assert_eq!(world.outcomes()[0].status, ReplyStatus::Completed);
    assert_eq!(world.outcomes()[0].items.len(), 1);
    let kind = ItemKind::FunctionCallOutput {
        call_id,
        output: "sunny".into(),
    };
    let item = Item {
        id: "".into(),
        status: ItemStatus::Completed,
        kind,
    };
    world.tell(Event::CreateItem {
        item,
        place: Place::End,
    });
    world.mute_model = false;
    world.tell(Event::CreateReply(ReplyPatch::default()));
    world.run_for(ms(20_000));
    assert_eq!(
        world.last_prompt(),
        [
            "user: What is the weather?",
            "call: weather",
            "output: sunny"
        ]
    );
}

#[test]
fn a_call_without_output_is_not_shown_to_the_model() {
    let mut world = World::new(Config::default());
    create(&mut world, "", Role::User, "hello");
    let kind = ItemKind::FunctionCall {
        call_id: "c".into(),
        name: "lost".into(),
        arguments: "{}".into(),
    };
    world.tell(Event::CreateItem {
        item: Item {
            id: "".into(),
            status: ItemStatus::Completed,
            kind,
        },
        place: Place::End,
    });
    let kind = ItemKind::FunctionCallOutput {
        call_id: "other".into(),
        output: "stray".into(),
    };
    world.tell(Event::CreateItem {
        item: Item {
            id: "".into(),
            status: ItemStatus::Completed,
            kind,
        },
        place: Place::End,
    });
    world.tell(Event::CreateReply(ReplyPatch::default()));
    assert_eq!(world.last_prompt(), ["user: hello"]);
}

#[test]
fn the_history_is_bounded_and_drops_the_oldest_but_no_system_message() {
    let limits = Limits {
        history_tokens: 100,
        ..Limits::default()
    };
    let mut world = World::new(Config {
        limits,
        ..Config::default()
    });
    create(&mut world, "", Role::System, "Be kind.");
    for n in 0..50 {
        create(
            &mut world,
            "",
            Role::User,
            &format!("message number {n:02}"),
        );
    }
    world.tell(Event::CreateReply(ReplyPatch::default()));
    let prompt = world.last_prompt();
    assert_eq!(prompt[0], "system: Be kind.");
    assert_eq!(prompt.last().unwrap(), "user: message number 49");
    assert!(prompt.len() > 5 && prompt.len() < 15, "{}", prompt.len());
    assert_eq!(
        world.conversation().len(),
        51,
        "the conversation itself is whole"
    );
}

#[test]
fn the_newest_message_is_given_even_if_it_is_too_long() {
    let limits = Limits {
        history_tokens: 10,
        ..Limits::default()
    };
    let mut world = World::new(Config {
        limits,
        ..Config::default()
    });
    create(&mut world, "", Role::User, "short");
    create(&mut world, "", Role::User, &"long ".repeat(100));
    world.tell(Event::CreateReply(ReplyPatch::default()));
    assert_eq!(world.last_prompt().len(), 1);
}

#[test]
fn the_number_of_items_is_bounded() {
    let limits = Limits {
        max_items: 10,
        ..Limits::default()
    };
    let mut world = World::new(Config {
        limits,
        ..Config::default()
    });
    for n in 0..30 {
        create(&mut world, &format!("i{n}"), Role::User, "x");
    }
    assert_eq!(world.session.items().len(), 10);
    assert_eq!(world.session.items()[0].id, "i20".into());
    assert!(
        world
            .notices()
            .iter()
            .any(|n| matches!(n, Notice::ItemDeleted { item } if *item == "i0".into()))
    );
}

/// A session that keeps 10 kB of text.
fn short_memory() -> World {
    World::new(Config {
        limits: Limits {
            max_item_bytes: 10_000,
            ..Limits::default()
        },
        ..Config::default()
    })
}

fn kept(world: &World) -> Vec<&str> {
    let items = world.session.items().iter();
    items.map(|item| item.id.0.as_str()).collect()
}

#[test]
fn the_bytes_of_items_are_bounded_and_the_client_is_told_which_went() {
    let mut world = short_memory();
    for n in 0..9 {
        create(&mut world, &format!("i{n}"), Role::User, &"x".repeat(2_000));
    }
    assert_eq!(kept(&world), ["i5", "i6", "i7", "i8"]);
    let notices = world.notices();
    let deleted = notices.iter().filter_map(|notice| match notice {
        Notice::ItemDeleted { item } => Some(item.0.as_str()),
        _ => None,
    });
    assert_eq!(deleted.collect::<Vec<_>>(), ["i0", "i1", "i2", "i3", "i4"]);
}

#[test]
fn what_the_operator_said_stays_while_there_is_other_text_to_drop() {
    let mut world = short_memory();
    create(&mut world, "rules", Role::System, &"r".repeat(4_000));
    for n in 0..5 {
        create(&mut world, &format!("i{n}"), Role::User, &"x".repeat(2_000));
    }
    assert_eq!(kept(&world), ["rules", "i3", "i4"]);
    create(&mut world, "more", Role::System, &"r".repeat(7_000));
    assert_eq!(kept(&world), ["more"]);
}

#[test]
fn an_item_that_is_too_large_alone_is_kept_until_the_next() {
    let mut world = short_memory();
    create(&mut world, "small", Role::User, "x");
    create(&mut world, "huge", Role::User, &"x".repeat(50_000));
    assert_eq!(kept(&world), ["huge"]);
    create(&mut world, "next", Role::User, "x");
    assert_eq!(kept(&world), ["next"]);
}

#[test]
fn a_second_reply_at_the_same_time_is_refused() {
    let mut world = World::new(Config::default());
    create(&mut world, "", Role::User, "hello");
    world.tell(Event::CreateReply(ReplyPatch::default()));
    world.tell(Event::CreateReply(ReplyPatch::default()));
    assert_eq!(errors(&world), [ErrorCode::ReplyActive]);
}

#[test]
fn a_reply_asked_for_while_the_user_speaks_comes_once_and_after() {
    let mut world = World::new(Config::default());
    world.says(ms(500), ms(1_500), "tell me something");
    let patch = ReplyPatch {
        instructions: Some("Be brief.".into()),
        ..ReplyPatch::default()
    };
    world.at(ms(1_000), Event::CreateReply(patch));
    world.run_until(ms(20_000));
    assert_eq!(world.session.counters().replies, 1);
    assert!(world.notices().iter().any(
        |n| matches!(n, Notice::ReplyCreated { options, .. } if options.instructions == "Be brief.")
    ));
}

#[test]
fn a_written_reply_is_told_as_text_and_never_spoken() {
    let mut world = World::new(Config::default());
    create(&mut world, "", Role::User, "hello");
    world.tell(Event::CreateReply(ReplyPatch {
        modality: Some(Modality::Text),
        ..ReplyPatch::default()
    }));
    world.run_for(ms(5_000));
    assert!(world.frames.is_empty());
    assert_eq!(
        world.outcomes()[0].heard,
        "Certainly. Here is what I know about that."
    );
    assert!(
        world
            .notices()
            .iter()
            .any(|n| matches!(n, Notice::ReplyTranscriptDone { written: true, .. }))
    );
}

#[test]
fn a_reply_outside_the_conversation_reads_what_it_is_given_and_leaves_no_trace() {
    let mut world = World::new(Config::default());
    create(&mut world, "", Role::User, "hello");
    world.tell(Event::CreateReply(ReplyPatch {
        in_conversation: Some(false),
        input: Some(vec![Item::message("x", Role::User, "something else")]),
        modality: Some(Modality::Text),
        ..ReplyPatch::default()
    }));
    world.run_for(ms(5_000));
    assert_eq!(world.last_prompt(), ["user: something else"]);
    assert_eq!(world.conversation(), ["user: hello"]);
    assert_eq!(world.outcomes()[0].items.len(), 1);
}

#[test]
fn given_text_is_spoken_without_a_model() {
    let mut world = World::new(Config::default());
    world.tell(Event::Say("Welcome back.".into()));
    world.run_for(ms(10_000));
    assert_eq!(world.conversation(), ["assistant: Welcome back."]);
    assert!(!world.frames.is_empty());
    assert_eq!(world.last_prompt(), Vec::<String>::new());
}

#[test]
fn a_system_message_is_in_the_prompt() {
    let mut world = World::new(Config::default());
    create(&mut world, "", Role::System, "You are a pirate.");
    world.says(ms(500), ms(1_000), "who are you");
    world.run_until(ms(10_000));
    assert_eq!(
        world.last_prompt(),
        ["system: You are a pirate.", "user: who are you"]
    );
}

#[test]
fn a_typed_question_is_answered_though_a_noise_goes_on() {
    for partials in [None, Some(ms(800))] {
        let mut config = Config::default();
        config.timing.partials = partials;
        let mut world = World::new(config);
        world.noise(ms(500), ms(20_000));
        world.run_until(ms(1_000));
        create(&mut world, "", Role::User, "What is two and two?");
        world.tell(Event::CreateReply(ReplyPatch::default()));
        world.run_until(ms(5_000));
        assert_eq!(world.last_prompt(), ["user: What is two and two?"]);
        assert!(!world.frames.is_empty(), "{partials:?}: silence");
    }
}

#[test]
fn a_typed_question_waits_for_somebody_who_speaks() {
    let mut config = Config::default();
    config.timing.partials = None;
    let mut world = World::new(config);
    world.says(
        ms(500),
        ms(8_000),
        "one two three four five six seven eight",
    );
    world.run_until(ms(1_000));
    create(&mut world, "", Role::User, "What is two and two?");
    world.tell(Event::CreateReply(ReplyPatch::default()));
    world.run_until(ms(8_400));
    assert!(world.frames.is_empty());
    world.run_until(ms(20_000));
    assert_eq!(world.outcomes().len(), 1);
    assert_eq!(world.last_prompt().len(), 2);
}
