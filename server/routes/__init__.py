"""Where route documents and their history live: a folder, a Kafka topic; and the commands about them."""
