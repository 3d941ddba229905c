-- The same music shop as an office would keep it: other names, other types, ids of its own.
-- How to use it: docs/how-to/chinook-two-way.md

CREATE TABLE artists (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    stage_name text
);

CREATE TABLE genres (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    title text
);

CREATE TABLE formats (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    title text
);

CREATE TABLE playlists (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    title text
);

CREATE TABLE staff (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    surname text NOT NULL,
    forename text NOT NULL,
    job text,
    manager_id bigint REFERENCES staff (id),
    born_on date,
    hired_on date,
    street text,
    town text,
    region text,
    country text,
    postcode text,
    phone text,
    fax text,
    email text
);

CREATE TABLE albums (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    title text NOT NULL,
    artist_id bigint NOT NULL REFERENCES artists (id)
);

CREATE TABLE clients (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    forename text NOT NULL,
    surname text NOT NULL,
    company text,
    street text,
    town text,
    region text,
    country text,
    postcode text,
    phone text,
    fax text,
    email text NOT NULL,
    contact_id bigint REFERENCES staff (id)
);

CREATE TABLE invoices (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    client_id bigint NOT NULL REFERENCES clients (id),
    issued_at timestamptz NOT NULL,
    street text,
    town text,
    region text,
    country text,
    postcode text,
    amount numeric(12,2) NOT NULL
);

CREATE TABLE tracks (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    title text NOT NULL,
    album_id bigint REFERENCES albums (id),
    format_id bigint NOT NULL REFERENCES formats (id),
    genre_id bigint REFERENCES genres (id),
    composer text,
    seconds numeric(12,3) NOT NULL,
    size bigint,
    price numeric(12,2) NOT NULL
);

CREATE TABLE invoice_items (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    invoice_id bigint NOT NULL REFERENCES invoices (id),
    track_id bigint NOT NULL REFERENCES tracks (id),
    price numeric(12,2) NOT NULL,
    pieces integer NOT NULL
);

CREATE TABLE playlist_tracks (
    playlist_id bigint NOT NULL REFERENCES playlists (id),
    track_id bigint NOT NULL REFERENCES tracks (id),
    PRIMARY KEY (playlist_id, track_id)
);
