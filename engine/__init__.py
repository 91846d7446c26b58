"""What the server and the workers share: the machinery that moves data. It knows neither grpc nor actors."""
