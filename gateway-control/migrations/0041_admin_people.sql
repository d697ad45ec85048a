-- Who named himself as the person behind an acting user of an admin connection, and until when (JSON; null: nobody).
ALTER TABLE connections ADD COLUMN admin_people TEXT;
