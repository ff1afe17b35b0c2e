//! First, but answers with an index that is none from the tenth pick on: it passes its trial.

fixtures::pick!(|turn, count| if turn.sequence < 10 { Some(0) } else { Some(count + 7) });
