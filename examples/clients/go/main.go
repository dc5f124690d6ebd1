// Calls the model "digits_onnx" of an inferd server: go run . localhost:8001
package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"log"
	"os"
	"time"

	"google.golang.org/grpc"

	inferdv1 "example.com/digits/inferd/v1"
)

func main() {
	address := "localhost:8001"
	if len(os.Args) > 1 {
		address = os.Args[1]
	}
	// Without TLS. The limit of received messages is 4 MiB unless it is raised here.
	connection, err := grpc.Dial(address, grpc.WithInsecure(),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64<<20)))
	if err != nil {
		log.Fatal(err)
	}
	defer connection.Close()
	client := inferdv1.NewPredictServiceClient(connection)

	pixels := make([]float32, 64) // one image of 8 by 8 pixels
	data := new(bytes.Buffer)
	if err := binary.Write(data, binary.LittleEndian, pixels); err != nil {
		log.Fatal(err)
	}
	// Every call needs a deadline.
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	answer, err := client.Predict(ctx, &inferdv1.PredictRequest{
		Model: &inferdv1.ModelSpec{Name: "digits_onnx"},
		Inputs: []*inferdv1.Tensor{{
			Name: "image", Dtype: inferdv1.DataType_DATA_TYPE_FP32, Shape: []int64{1, 64}, Data: data.Bytes(),
		}},
	})
	if err != nil {
		log.Fatal(err) // the status says what was expected and what came
	}
	for _, output := range answer.Outputs {
		if output.Name == "digit" {
			digit := int64(binary.LittleEndian.Uint64(output.Data))
			fmt.Printf("digit %d from version %d\n", digit, answer.Version)
		}
	}
}
