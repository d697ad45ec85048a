-- What the sending organization calls its end of a connection; none: as what it feeds. Two senders of one server are not called the same.
ALTER TABLE connections ADD COLUMN sender_name TEXT;
ALTER TABLE connections ADD COLUMN sender_name_key TEXT;
CREATE UNIQUE INDEX connections_sender_names ON connections (sender_server_id, sender_name_key)
    WHERE sender_name_key IS NOT NULL AND NOT ended;
